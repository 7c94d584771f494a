package build

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A cacheCase is two builds: the first, a change, the second. want names, for
// each step shown by the second, whether it comes from the cache: "+" cached,
// "-" done.
type cacheCase struct {
	name, first string
	// second stands for the Dockerfile of the second build, "" for the same.
	second string
	change func(k *kit)
	want   string
}

func cacheCases() []cacheCase {
	touch := func(name string) func(*kit) {
		return func(k *kit) {
			then := time.Now().Add(-time.Hour)
			must(k.t, os.Chtimes(filepath.Join(k.dir, name), then, then))
		}
	}
	write := func(name, data string) func(*kit) { return func(k *kit) { k.file(name, data) } }
	remove := func(name string) func(*kit) {
		return func(k *kit) { must(k.t, os.Remove(filepath.Join(k.dir, name))) }
	}
	none := func(*kit) {}
	const copyRun = "FROM base\nCOPY a /a\nRUN cat /a\n"
	return []cacheCase{
		{"nothing changed", copyRun, "", none, "++"},
		{"content", copyRun, "", write("a", "2"), "--"},
		{"content of the same length", copyRun, "", write("a", "9"), "--"},
		{"time only", copyRun, "", touch("a"), "++"},
		{"rewritten alike", copyRun, "", write("a", "1"), "++"},
		{"mode", copyRun, "", func(k *kit) { must(k.t, os.Chmod(filepath.Join(k.dir, "a"), 0o755)) }, "--"},
		{"owner in the context", copyRun, "", func(k *kit) { must(k.t, os.Chown(filepath.Join(k.dir, "a"), 5, 5)) }, "++"},
		{"file that no step copies", copyRun, "", write("other", "x"), "++"},
		{"Dockerfile comment", copyRun, "# new\n" + copyRun, none, "++"},
		{"rename in a directory", "FROM base\nCOPY d /d\n", "", func(k *kit) {
			must(k.t, os.Rename(filepath.Join(k.dir, "d/x"), filepath.Join(k.dir, "d/y")))
		}, "-"},
		{"new file in a directory", "FROM base\nCOPY d /d\n", "", write("d/new", "n"), "-"},
		{"new empty directory", "FROM base\nCOPY d /d\n", "", func(k *kit) { must(k.t, os.Mkdir(filepath.Join(k.dir, "d/e"), 0o755)) }, "-"},
		{"removed file", "FROM base\nCOPY d /d\n", "", remove("d/x"), "-"},
		{"time of a directory", "FROM base\nCOPY d /d\n", "", touch("d"), "+"},
		{"link elsewhere", "FROM base\nCOPY d /d\n", "", func(k *kit) {
			must(k.t, os.Remove(filepath.Join(k.dir, "d/l")))
			must(k.t, os.Symlink("other", filepath.Join(k.dir, "d/l")))
		}, "-"},
		{"link to a changed file", "FROM base\nCOPY d/l /x\n", "", write("d/x", "2"), "-"},
		{"new match of a pattern", "FROM base\nCOPY *.txt /t/\n", "", write("z.txt", "z"), "-"},
		{"no new match of a pattern", "FROM base\nCOPY *.txt /t/\n", "", write("z.md", "z"), "+"},
		{"ignored file", "FROM base\nCOPY . /x\n", "", write("skip.log", "2"), "+"},
		{"no longer ignored", "FROM base\nCOPY . /x\n", "", write(".dockerignore", "Dockerfile\n.dockerignore\n"), "-"},
		{"ignore file that changes nothing", "FROM base\nCOPY . /x\n", "", write(".dockerignore", "# c\n*.log\nDockerfile\n.dockerignore\nnothing\n"), "+"},
		{"first of two copies", "FROM base\nCOPY a /a\nCOPY d /d\n", "", write("a", "2"), "--"},
		{"second of two copies", "FROM base\nCOPY a /a\nCOPY d /d\n", "", write("d/x", "2"), "+-"},
		{"destination", "FROM base\nCOPY a /a\nRUN ls\n", "FROM base\nCOPY a /a2\nRUN ls\n", none, "--"},
		{"command", "FROM base\nRUN echo 1\nRUN echo 2\n", "FROM base\nRUN echo 1\nRUN echo 3\n", none, "+-"},
		{"first command", "FROM base\nRUN echo 1 > /f\nRUN echo 2\n", "FROM base\nRUN echo 0 > /f\nRUN echo 2\n", none, "--"},
		{"first command to the same files", "FROM base\nRUN echo 1\nRUN echo 2\n", "FROM base\nRUN echo 0\nRUN echo 2\n", none, "-+"},
		{"ENV before", "FROM base\nENV A=1\nRUN echo\n", "FROM base\nENV A=2\nRUN echo\n", none, "-"},
		{"ENV after", "FROM base\nRUN echo\nENV A=1\n", "FROM base\nRUN echo\nENV A=2\n", none, "+"},
		{"order of ENV", "FROM base\nENV A=1 B=2\nRUN echo\n", "FROM base\nENV B=2 A=1\nRUN echo\n", none, "-"},
		{"LABEL before", "FROM base\nLABEL a=1\nRUN echo\n", "FROM base\nLABEL a=2\nRUN echo\n", none, "+"},
		{"ENV does not matter to COPY", "FROM base\nENV A=1\nCOPY a /a\n", "FROM base\nENV A=2\nCOPY a /a\n", none, "+"},
		{"USER", "FROM base\nUSER root\nRUN echo\n", "FROM base\nUSER app\nRUN echo\n", none, "-"},
		{"SHELL", "FROM base\nRUN echo\n", "FROM base\nSHELL [\"/bin/sh\",\"-ec\"]\nRUN echo\n", none, "-"},
		{"build argument used", "FROM base\nARG X\nRUN echo $X\n", "", func(k *kit) { k.req.Args = map[string]string{"X": "2"} }, "-"},
		{"build argument declared later", "FROM base\nRUN echo\nARG X\n", "", func(k *kit) { k.req.Args = map[string]string{"X": "2"} }, "+"},
		{"build argument nobody declares", "FROM base\nRUN echo\n", "", func(k *kit) { k.req.Args = map[string]string{"X": "2"} }, "+"},
		{"proxy", "FROM base\nRUN echo\n", "", func(k *kit) { k.req.Args = map[string]string{"HTTP_PROXY": "http://p"} }, "+"},
		{"build argument in COPY", "FROM base\nARG X=a\nCOPY $X /f\n", "", func(k *kit) { k.req.Args = map[string]string{"X": "d"} }, "-"},
		{"mount of a changed file", "FROM base\nRUN --mount=target=/c cat /c/a\n", "", write("a", "2"), "-"},
		{"mount with a change outside it", "FROM base\nRUN --mount=target=/c,source=d cat /c/x\n", "", write("a", "2"), "+"},
		{"mount touched", "FROM base\nRUN --mount=target=/c cat /c/a\n", "", touch("a"), "+"},
		{"mount from a changed stage", "FROM base AS o\nCOPY a /a\nFROM base\nRUN --mount=from=o,target=/o cat /o/a\n", "", write("a", "2"), "--"},
		{"stage rebuilt to the same file", "FROM base AS o\nCOPY a /a\nRUN echo same > /out\nFROM base\nCOPY --from=o /out /out\n", "", write("a", "2"), "--+"},
		{"heredoc", "FROM base\nRUN <<E\necho 1\nE\n", "FROM base\nRUN <<E\necho 2\nE\n", none, "-"},
		{"heredoc of COPY", "FROM base\nCOPY <<E /f\n1\nE\n", "FROM base\nCOPY <<E /f\n2\nE\n", none, "-"},
		{"secret", "FROM base\nRUN --mount=type=secret,id=s cat /run/secrets/s\n", "", func(k *kit) {
			k.file("s2", "other")
			k.req.Secrets = map[string]Secret{"s": {File: filepath.Join(k.dir, "s2")}}
		}, "+"},
		{"cache mount", "FROM base\nRUN --mount=type=cache,target=/c date > /c/x\n", "", none, "+"},
		{"network", "FROM base\nRUN echo\n", "FROM base\nRUN --network=none echo\n", none, "-"},
		{"chown", "FROM base\nCOPY a /a\n", "FROM base\nCOPY --chown=5 a /a\n", none, "-"},
		{"directory that is there", "FROM base\nWORKDIR /etc\nRUN echo\n", "", none, "++"},
		{"directory to make", "FROM base\nWORKDIR /new\nRUN echo\n", "", none, "++"},
		{"copy from a stage again", "FROM base AS o\nCOPY a /a\nFROM base\nCOPY --from=o /a /b\n", "", none, "++"},
		{"copy from a stage of new content", "FROM base AS o\nCOPY a /a\nFROM base\nCOPY --from=o /a /b\n", "", write("a", "2"), "--"},
		{"platform", "FROM base\nRUN echo\n", "", func(k *kit) { k.req.Platforms = []v1.Platform{{OS: "linux", Architecture: "386"}} }, "?"},
		{"no cache", copyRun, "", func(k *kit) { k.req.NoCache = true }, "--"},
		{"no cache for a stage", "FROM base AS s\nRUN echo 1\nFROM s AS t\nRUN echo 2\n", "", func(k *kit) { k.req.NoCacheStages = []string{"t"} }, "+-"},
		{"link above another base", "FROM base\nRUN echo 1 > /x\nCOPY --link a /l\n", "FROM base\nRUN echo 2 > /x\nCOPY --link a /l\n", none, "-+"},
		{"base image moved", copyRun, "", func(k *kit) {
			other := *k
			other.dir = k.t.TempDir()
			other.req = Request{Tags: []string{"base"}}
			other.dockerfile("FROM base\nRUN echo moved > /moved\n")
		}, "--"},
		{"ONBUILD of the base", "FROM ob\nRUN echo\n", "", func(k *kit) { onbuild(k, "RUN echo 2 > /f") }, "--"},
		{"ONBUILD the same", "FROM ob\nRUN echo\n", "", func(k *kit) { onbuild(k, "RUN echo 1 > /f") }, "++"},
		{"epoch", copyRun, "", func(k *kit) { k.req.Epoch = time.Unix(1, 0) }, "--"},
	}
}

// onbuild makes the image ob with a trigger.
func onbuild(k *kit, trigger string) {
	other := *k
	other.dir = k.t.TempDir()
	other.req = Request{Tags: []string{"ob"}}
	other.dockerfile("FROM base\nONBUILD " + trigger + "\n")
}

// TestCacheHitsAndMisses holds that nothing stale is used and nothing is done
// again without need.
func TestCacheHitsAndMisses(t *testing.T) {
	k := newKit(t)
	top := k.dir
	for i, c := range cacheCases() {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			if strings.ContainsAny(c.want, "?") {
				t.Skip("needs an image for another platform")
			}
			k := *k
			k.t, k.dir = t, filepath.Join(top, fmt.Sprint(i))
			must(t, os.Mkdir(k.dir, 0o755))
			// Each case has a base of its own, so that none sees another's steps.
			base := k
			base.dir, base.req = t.TempDir(), Request{Tags: []string{"base"}}
			base.dockerfile(fmt.Sprintf("FROM base\nENV CASE=%d\nRUN echo %d > /case\n", i, i))
			k.file("a", "1")
			k.file("d/x", "x")
			k.file("one.txt", "t")
			k.file("skip.log", "1")
			k.file("s", "hidden")
			k.file(".dockerignore", "*.log\nDockerfile\n.dockerignore\n")
			must(t, os.Symlink("x", filepath.Join(k.dir, "d/l")))
			k.req = Request{Secrets: map[string]Secret{"s": {File: filepath.Join(k.dir, "s")}}}
			onbuild(&k, "RUN echo 1 > /f")
			k.dockerfile(c.first)
			time.Sleep(10 * time.Millisecond) // let times differ from those just recorded
			c.change(&k)
			_, log := k.dockerfile(cmpOr(c.second, c.first))
			if got, want := outcome(log), c.want; got != want {
				t.Errorf("steps %s, want %s\n%s", got, want, log)
			}
		})
	}
}

// outcome reads a plain log: for each step in the order of the Dockerfile's
// stages, "+" for cached and "-" for done.
func outcome(log string) string {
	name := map[string]string{}
	state := map[string]string{}
	var order []string
	for line := range strings.Lines(log) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case strings.HasPrefix(rest, "[base]"):
		case strings.HasPrefix(rest, "["):
			name[id] = rest
			order = append(order, id)
		case rest == "CACHED":
			state[id] = "+"
		case strings.HasPrefix(rest, "DONE"):
			state[id] = "-"
		}
	}
	var b strings.Builder
	for _, id := range order {
		b.WriteString(state[id])
	}
	return b.String()
}
