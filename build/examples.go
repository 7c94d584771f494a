package build

// Help shows examples; see kong.HelpProvider.
func (*Cmd) Help() string {
	return `  kist build -t mine .                                the Dockerfile here
  kist build -t mine --target test --build-arg V=2 .  up to a stage, with an argument
  kist build -o type=local,dest=out .                 the files, not an image
  kist build --secret id=token,src=token.txt .        RUN --mount=type=secret,id=token
  kist build --platform linux/amd64,linux/arm64 --push -t registry.example.org/x .`
}
