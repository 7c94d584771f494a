# kist's tasks; each is also a plain command that can be pasted.

export CGO_ENABLED := "0"

# One static binary.
build:
    go build -trimpath -ldflags '-s -w' -o kist .

# All tests, with what was skipped and why.
test:
    .ci/test

# Everything a change must pass before review.
lint:
    test -z "$(gofmt -l .)"
    go vet ./...

# Speed, beside docker, podman, crun and skopeo where they are installed.
bench *ARGS: build
    testdata/bench/run {{ARGS}}

# Each fuzz target for a while.
fuzz TIME="60s":
    .ci/fuzz {{TIME}}
