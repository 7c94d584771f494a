package build

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/kist-containers/kist/internal/ui"
)

// A Dockerfile is a parsed build description: global arguments and stages.
type Dockerfile struct {
	// Name is how messages call the file.
	Name    string
	Globals []instructions.ArgCommand
	Stages  []instructions.Stage
	// Warnings are what the linter found while parsing.
	Warnings []Warning

	escape rune
	lines  []string
	lint   *linter.Linter
	// mu guards Warnings: stages are built at the same time.
	mu sync.Mutex
}

// A Warning is one finding of `kist build --check`.
type Warning struct {
	Rule string `json:"rule"`
	Text string `json:"text"`
	URL  string `json:"url,omitempty"`
	Line int    `json:"line"`
}

// SourceError is an error about a place in a Dockerfile.
type SourceError struct {
	File string
	// Line is the first line, counted from 1; Text are the lines concerned.
	Line int
	Text []string
	Err  error
}

func (e *SourceError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }
func (e *SourceError) Unwrap() error { return e.Err }

// Excerpt is the source text under its line numbers.
func (e *SourceError) Excerpt() string {
	var b strings.Builder
	for i, l := range e.Text {
		fmt.Fprintf(&b, "%5d | %s\n", e.Line+i, l)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// maxDockerfile bounds what is read as a Dockerfile.
const maxDockerfile = 16 << 20

// ParseDockerfile parses data. check is the value of --build-arg
// BUILDKIT_DOCKERFILE_CHECK and stands for the check directive when not empty.
// Errors are *SourceError where they have a place.
func ParseDockerfile(name string, data []byte, check string) (*Dockerfile, error) {
	d := &Dockerfile{Name: name, lines: strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")}
	if len(data) > maxDockerfile {
		return nil, fmt.Errorf("%s: larger than %s", name, ui.Binary(maxDockerfile))
	}
	if err := d.linter(data, check); err != nil {
		return nil, err
	}
	ast, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return nil, d.wrap(err, nil)
	}
	d.escape = ast.EscapeToken
	d.lintSource(ast)
	d.Stages, d.Globals, err = instructions.Parse(ast.AST, d.lint)
	if err != nil {
		return nil, d.wrap(err, nil)
	}
	if len(d.Stages) == 0 {
		return nil, fmt.Errorf("%s: no FROM instruction, so there is no stage to build", name)
	}
	return d, d.checkNames()
}

// checkNames refuses stage names that mean something else.
func (d *Dockerfile) checkNames() error {
	for _, s := range d.Stages {
		if s.Name == "context" {
			return d.at(s.Location, fmt.Errorf("stage name %q is reserved", s.Name))
		}
	}
	return nil
}

// at places err on a location of the file, unless it has a place already.
func (d *Dockerfile) at(location []parser.Range, err error) error {
	var placed *SourceError
	if err == nil || errors.As(err, &placed) || len(location) == 0 {
		return err
	}
	first := location[0].Start.Line
	last := max(location[len(location)-1].End.Line, first)
	if first < 1 || first > len(d.lines) {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	return &SourceError{File: d.Name, Line: first, Text: d.lines[first-1 : min(last, len(d.lines))], Err: err}
}

// wrap turns the parser's errors into ours: its text without the line number
// that we print ourselves, and the near miss as a hint.
func (d *Dockerfile) wrap(err error, location []parser.Range) error {
	var unknown *instructions.UnknownInstructionError
	var placed *parser.LocationError
	if errors.As(err, &placed) && len(placed.Locations) > 0 {
		location = placed.Locations[0]
	}
	if errors.As(err, &unknown) {
		location = []parser.Range{{Start: parser.Position{Line: unknown.Line}, End: parser.Position{Line: unknown.Line}}}
		bad := fmt.Errorf("%s: no such instruction", unknown.Instruction)
		if near := nearInstruction(unknown.Instruction); near != "" {
			return d.at(location, ui.Hint(bad, "did you mean %s?", near))
		}
		return d.at(location, bad)
	}
	text := err.Error()
	if rest, ok := strings.CutPrefix(text, "dockerfile parse error on line "); ok {
		if line, after, ok := strings.Cut(rest, ": "); ok {
			text = after
			var n int
			if _, scan := fmt.Sscan(line, &n); scan == nil && len(location) == 0 {
				location = []parser.Range{{Start: parser.Position{Line: n}, End: parser.Position{Line: n}}}
			}
		}
	}
	if text == "file with no instructions" {
		return fmt.Errorf("%s: no instructions in it", d.Name)
	}
	// The parser appends its guess; ours are hints.
	if before, guess, ok := strings.Cut(text, " (did you mean "); ok {
		if _, flag := strings.CutPrefix(before, "unknown flag: --"); flag {
			guess = "--" + guess
		}
		return d.at(location, ui.Hint(errors.New(before), "did you mean %s", strings.TrimSuffix(guess, ")")))
	}
	return d.at(location, errors.New(text))
}

// keywords are the instructions of a Dockerfile.
func keywords() []string {
	return []string{"ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL",
		"MAINTAINER", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}
}
