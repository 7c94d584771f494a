package image

// The examples that --help shows; see kong.HelpProvider.

func (*PullCmd) Help() string {
	return `  kist pull debian                    the latest, from docker.io
  kist pull ghcr.io/owner/name@sha256:…   one that never changes
  kist pull --platform linux/arm64 alpine for another machine`
}

func (*PushCmd) Help() string {
	return `  kist tag mine registry.example.org/me/mine:1
  kist push registry.example.org/me/mine:1`
}

func (*ListCmd) Help() string {
	return `  kist images --digests               with the digests of their manifests
  kist images -f dangling=true -q     IDs of what has no name`
}

func (*SaveCmd) Help() string {
	return `  kist save -o both.tar mine:1 mine:2                 one archive, as docker's
  kist save --format oci-archive mine | ssh HOST kist load`
}

func (*LoadCmd) Help() string {
	return `  kist load -i both.tar               of docker, podman or skopeo
  curl -L URL | kist load             from a stream, compressed or not`
}

func (*CopyCmd) Help() string {
	return `  kist image copy docker://a.example/x:1 docker://b.example/x:1
  kist image copy docker://alpine oci:dir:alpine      without unpacking`
}

func (*LoginCmd) Help() string {
	return `  kist login registry.example.org -u me               asks for the password
  pass show reg | kist login -u me --password-stdin registry.example.org`
}
