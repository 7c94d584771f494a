package volume

// The examples that --help shows; see kong.HelpProvider.

func (*CreateCmd) Help() string {
	return `  kist volume create data
  kist volume create -o type=tmpfs -o device=tmpfs -o o=size=64m scratch
  kist volume create -o type=nfs -o o=addr=10.0.0.2,rw -o device=:/export shared`
}

func (*ExportCmd) Help() string { return "  kist volume export data -o data.tar" }
func (*ImportCmd) Help() string { return "  kist volume import data data.tar" }
