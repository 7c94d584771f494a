package build

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/image"
	"github.com/kist-containers/kist/internal/reexec"
	"github.com/kist-containers/kist/internal/ui"
)

func TestSameEpochSameDigest(t *testing.T) {
	const text = "FROM base\nARG X\nWORKDIR /w\nCOPY d .\nADD a.tar.gz /x/\nRUN echo 1 > /f && mkdir /g && ln /f /g/h && ln -s f /l\nRUN rm /f\n"
	var ids []string
	for i := range 2 {
		k := newKit(t) // a store of its own: another machine
		k.req.Epoch = time.Unix(1_700_000_000, 0).UTC()
		base := *k
		base.dir, base.req = filepath.Join(filepath.Dir(k.dir), "base"), k.req
		base.req.Tags = []string{"base"}
		base.build()
		k.file("d/b", "2")
		k.file("d/a", "1")
		k.setup([]string{"tar", "a.tar.gz", "y:1"})
		then := time.Now().Add(-time.Duration(i+1) * time.Hour)
		must(t, os.Chtimes(filepath.Join(k.dir, "d/a"), then, then))
		res, _ := k.dockerfile(text)
		ids = append(ids, res.ID+" "+res.Digest)
	}
	if ids[0] != ids[1] {
		t.Errorf("two builds give %s and %s", ids[0], ids[1])
	}
}

func TestCachedBuildHasTheSameID(t *testing.T) {
	k := newKit(t)
	first, _ := k.dockerfile("FROM base\nRUN echo 1 > /f\nENV A=1\n")
	second, _ := k.build()
	if first.ID != second.ID {
		t.Errorf("IDs %s and %s", first.ID, second.ID)
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	k := newKit(t)
	for _, c := range []struct{ text, want, hint string }{
		{"FORM base\n", "Dockerfile:1: FORM: no such instruction", "did you mean FROM?"},
		{"FROM base\n\nRUN true\nCPOY a /a\n", "Dockerfile:4: CPOY: no such instruction", "did you mean COPY?"},
		{"RUN true\n", "Dockerfile:1: no build stage in current context", ""},
		{"", "Dockerfile: no instructions in it", ""},
		{"# only\n", "Dockerfile: no instructions in it", ""},
		{"FROM base\nCOPY --frm=x a /a\n", "Dockerfile:2: unknown flag: --frm", "did you mean --from?"},
		{"FROM base\nCOPY flie /a\n", "Dockerfile:2: flie: not in the build context", "did you mean file?"},
		{"FROM base\nCOPY *.zip /a\n", "Dockerfile:2: *.zip: nothing in the build context matches", ""},
		{"FROM base\nCOPY hidden /a\n", "Dockerfile:2: hidden: excluded from the build context by .dockerignore", ""},
		{"FROM base\nCOPY file hidden /a\n", "Dockerfile:2: COPY: with more than one source the destination must end with a / (/a/)", ""},
		{"FROM base\nRUN exit 3\n", "Dockerfile:2: the command ended with exit status 3", ""},
		{"FROM base\nRUN [\"nosuch\"]\n", "Dockerfile:2: nosuch: not in the image's PATH", ""},
		{"FROM base\nCOPY --from=later /a /a\nFROM base AS later\n", "", ""},
		{"FROM base AS x\nCOPY --from=x /a /a\n", "Dockerfile:2: from=x: a stage cannot copy from itself", ""},
		{"FROM base\nCOPY --from=y /a /a\nFROM base AS y\nCOPY --from=0 /b /b\n", "Dockerfile:2: from=y: that stage comes later", ""},
		{"FROM $NOPE\n", "Dockerfile:1: FROM $NOPE: the name is empty after its variables were replaced", "give the ARG a default before FROM, or --build-arg"},
		{"FROM base\nUSER nobody\nRUN true\n", "Dockerfile:3: user nobody: not in the image's /etc/passwd", ""},
		{"FROM base\nRUN --network=host true\n", "Dockerfile:2: RUN --network=host: not granted", "kist build --allow network.host …"},
		{"FROM base\nRUN --security=insecure true\n", "Dockerfile:2: RUN --security=insecure: not granted", "kist build --allow security.insecure …"},
		{"FROM base\nRUN --mount=type=secret,id=s,required=true true\n", "Dockerfile:2: secret s: required, and --secret id=s was not given", ""},
		{"FROM base\nRUN --mount=type=bind,target=/ true\n", "Dockerfile:2: RUN --mount: the target / is the root file system itself", ""},
		{"FROM base\nRUN --device=a.b/c=d,required true\n", "Dockerfile:2: RUN --device=a.b/c=d: kist gives a build no devices, and this one is required", ""},
		{"FROM base\nEXPOSE 99999\n", `Dockerfile:2: EXPOSE 99999: port "99999" is not in 1-65535`, ""},
		{"FROM base\nSTOPSIGNAL SIGNOPE\n", "Dockerfile:2: STOPSIGNAL SIGNOPE: no such signal", ""},
		{"FROM base\nCOPY --chmod=999 file /a\n", "Dockerfile:2: --chmod=999: want octal digits up to 07777, or symbols such as u=rwX,go=rX", ""},
		{"FROM base\nCOPY --link --chown=app file /a\n", "Dockerfile:2: --chown=app with --link: names mean nothing without the base", "give numbers: --chown=UID:GID"},
		{"FROM base\nADD --checksum=sha256:00 file /a\n", "Dockerfile:2: ADD --checksum: wants exactly one source, a URL or a git repository", ""},
		{"FROM --platform=windows/amd64 base\n", `Dockerfile:1: platform "windows/amd64": kist builds for linux`, ""},
	} {
		if c.want == "" {
			continue
		}
		k.file("file", "1")
		k.file("hidden", "1")
		k.file(".dockerignore", "hidden\n")
		k.file("Dockerfile", c.text)
		_, log, err := k.try()
		if err == nil {
			t.Errorf("%q is built\n%s", c.text, log)
			continue
		}
		text, hint, _ := strings.Cut(ui.ErrorText(err), "\nhint: ")
		if text != "kist: "+c.want || hint != c.hint {
			t.Errorf("%q: %s (hint %q), want %s (hint %q)", c.text, text, hint, c.want, c.hint)
		}
	}
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	k := newKit(t)
	k.file("Dockerfile", "FROM base\nRUN echo 1 > /f\nRUN false\n")
	if _, _, err := k.try(); err == nil {
		t.Fatal("RUN false succeeds")
	}
	k.nothingLeft()
	_, log, _ := k.try()
	if !strings.Contains(log, "CACHED") {
		t.Errorf("the next build does not go on from the last good step:\n%s", log)
	}
}

// nothingLeft holds that no scratch space, mount, container or lock remains.
func (k *kit) nothingLeft() {
	k.t.Helper()
	for _, dir := range []string{k.b.dir("tmp"), filepath.Join(k.b.roots.Run, "build")} {
		entries, err := os.ReadDir(dir)
		must(k.t, err)
		for _, e := range entries {
			k.t.Errorf("%s is left in %s", e.Name(), dir)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(k.t, err)
	if strings.Contains(string(mounts), k.b.roots.Data) {
		k.t.Error("a mount is left")
	}
}

func TestSecretsAreInNoLayer(t *testing.T) {
	k := newKit(t)
	const word = "x8QpZsecretword"
	secret := filepath.Join(t.TempDir(), "s")
	must(t, os.WriteFile(secret, []byte(word), 0o600))
	k.req.Secrets = map[string]Secret{"s": {File: secret}}
	k.dockerfile("FROM base\nRUN --mount=type=secret,id=s,mode=0440 --mount=type=secret,id=s,env=S test \"$(cat /run/secrets/s)\" = \"$S\" && stat -c %a /run/secrets/s > /mode\n")
	must(t, filepath.WalkDir(k.b.roots.Data, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if strings.Contains(string(data), word) {
			t.Errorf("%s holds the secret", p)
		}
		return err
	}))
	k.nothingLeft()
}

func TestNothingOfTheHostIsReached(t *testing.T) {
	k := newKit(t)
	outside := filepath.Join(filepath.Dir(k.dir), "outside")
	must(t, os.MkdirAll(outside, 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "f"), []byte("host"), 0o644))
	must(t, os.Symlink(outside, filepath.Join(k.dir, "abs")))
	must(t, os.Symlink("../outside", filepath.Join(k.dir, "rel")))
	k.file("a", "1")
	for _, text := range []string{
		"FROM base\nCOPY abs /x\n", "FROM base\nCOPY abs/f /x\n", "FROM base\nCOPY rel/f /x\n", "FROM base\nCOPY ../outside/f /x\n",
		"FROM base\nRUN --mount=source=abs,target=/m cat /m/f\n",
		"FROM base AS s\nRUN ln -s " + outside + " /o\nFROM base\nCOPY --from=s /o/f /x\n",
		"FROM base AS s\nRUN ln -s " + outside + " /o\nFROM base\nRUN --mount=from=s,source=/o,target=/m cat /m/f\n",
	} {
		k.file("Dockerfile", text)
		if _, log, err := k.try(); err == nil {
			t.Errorf("%q is built\n%s", text, log)
		}
	}
	// Writing through a link of the image stays in the image.
	k.dockerfile("FROM base\nRUN ln -s " + outside + " /o\nCOPY a /o/new\nADD a /o/\n")
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("outside has %v", entries)
	}
	// So do archives, whatever their names and links.
	k.file("evil.tar", archiveOf(t, false, []string{"../../../outside/up:1", "/abs/one:1"}))
	res, _ := k.dockerfile("FROM base\nADD evil.tar /dst/\n")
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("outside has %v", entries)
	}
	if files := k.files(res); !strings.Contains(files, "dst/outside/up ") || !strings.Contains(files, "dst/abs/one ") {
		t.Errorf("names of the archive are not below the destination:\n%s", files)
	}
}

// Each of two stages waits for a file that the other one makes.
func TestIndependentStagesRunAtTheSameTime(t *testing.T) {
	k := newKit(t)
	k.req.Jobs = 2
	const meet = "RUN --mount=type=cache,id=m,target=/m echo 1 > /m/%s && i=0 && while [ ! -e /m/%s ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done; mv /m/%[2]s /f\n"
	k.dockerfile("FROM base AS a\n" + fmt.Sprintf(meet, "a", "b") + "FROM base AS b\n" + fmt.Sprintf(meet, "b", "a") +
		"FROM base\nCOPY --from=a /f /a\nCOPY --from=b /f /b\n")
}

func TestTwoBuildsShareAStep(t *testing.T) {
	k := newKit(t)
	k.file("Dockerfile", "FROM base\nRUN sleep 0.3; date +%s%N > /f\n")
	var wg sync.WaitGroup
	ids := make([]string, 2)
	for i := range ids {
		wg.Go(func() {
			k := *k
			res, _, err := k.try()
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = res.ID
		})
	}
	wg.Wait()
	if ids[0] != ids[1] {
		t.Errorf("two builds at once give %v", ids)
	}
	k.nothingLeft()
}

func TestCancelledBuildStopsItsCommand(t *testing.T) {
	k := newKit(t)
	k.file("Dockerfile", "FROM base\nRUN sleep 60\n")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	req := Request{Context: k.dir, Pull: "never"}
	start := time.Now()
	_, err := k.b.Build(ctx, &req, newDisplay(progressQuiet, &ui.Output{}))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 30*time.Second {
		t.Errorf("build ends with %v after %v", err, time.Since(start))
	}
	k.nothingLeft()
}

func TestSquashMakesOneLayer(t *testing.T) {
	k := newKit(t)
	const text = "FROM base\nRUN mkdir /d && echo 1 > /d/f && rm /etc/group\nRUN rm -r /d && mkdir /d && echo 2 > /d/g\n"
	plain, _ := k.dockerfile(text)
	want := k.files(plain)
	k.req.Squash = true
	res, _ := k.build()
	if n := len(res.Images[0].layers); n != 2 {
		t.Errorf("%d layers, want 2", n)
	}
	if got := k.files(res); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestCacheGoesToADirectoryAndComesBack(t *testing.T) {
	k := newKit(t)
	cache := []CacheLocation{{Type: "local", Where: t.TempDir()}}
	k.req.CacheTo = cache
	k.dockerfile("FROM base\nRUN echo 1 > /f\nRUN date +%N > /g\n")
	k.req.CacheTo, k.req.CacheFrom = nil, cache
	if _, err := k.b.Prune(t.Context(), Prune{}); err != nil {
		t.Fatal(err)
	}
	if _, log := k.build(); outcome(log) != "++" {
		t.Errorf("steps %s, want ++\n%s", outcome(log), log)
	}
}

func TestPruneKeepsTheMostRecentlyUsed(t *testing.T) {
	k := newKit(t)
	k.dockerfile("FROM base\nRUN dd if=/dev/zero of=/old bs=1M count=2\n")
	time.Sleep(20 * time.Millisecond)
	k.dockerfile("FROM base\nRUN dd if=/dev/zero of=/new bs=1M count=2\n")
	k.b.o.CacheLimit = 3 << 20
	must(t, k.b.Trim(t.Context()))
	if _, log := k.build(); outcome(log) != "+" {
		t.Errorf("the newest step is gone:\n%s", log)
	}
	if _, log := k.dockerfile("FROM base\nRUN dd if=/dev/zero of=/old bs=1M count=2\n"); outcome(log) != "-" {
		t.Errorf("the oldest step is there:\n%s", log)
	}
}

func TestPruneSparesWhatImagesHave(t *testing.T) {
	k := newKit(t)
	k.req.Tags = []string{"kept"}
	k.dockerfile("FROM base\nRUN echo 1 > /kept\n")
	k.req.Tags = []string{"lost"}
	k.dockerfile("FROM base AS lost\nRUN echo 1 > /lost\n")
	_, err := k.b.store.Remove(t.Context(), "lost", image.RemoveOptions{})
	must(t, err)
	left := func(p Prune) string {
		_, err := k.b.Prune(t.Context(), p)
		must(t, err)
		all, err := k.b.Records()
		must(t, err)
		var text strings.Builder
		for _, rec := range all {
			text.WriteString(rec.Text + "\n")
		}
		return text.String()
	}
	if got := left(Prune{Private: true}); !strings.Contains(got, "/kept") || strings.Contains(got, "/lost") {
		t.Errorf("left after pruning the private ones:\n%s", got)
	}
	if got := left(Prune{}); got != "" {
		t.Errorf("left after pruning all:\n%s", got)
	}
}

func TestContextFromStandardInput(t *testing.T) {
	k := newKit(t)
	for name, data := range map[string]string{
		"archive":    archiveOf(t, false, []string{"Dockerfile:FROM base\nCOPY a /a\n", "a:1"}),
		"gzip":       archiveOf(t, true, []string{"Dockerfile:FROM base\nCOPY a /a\n", "a:1"}),
		"Dockerfile": "FROM base\nRUN echo 1 > /a\n",
	} {
		p := filepath.Join(t.TempDir(), "in")
		must(t, os.WriteFile(p, []byte(data), 0o600))
		in, err := os.Open(p)
		must(t, err)
		req := Request{Context: "-", Stdin: in, Pull: "never"}
		res, err := k.b.Build(t.Context(), &req, newDisplay(progressQuiet, &ui.Output{}))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if files := k.files(res); !strings.Contains(files, "a 100") {
			t.Errorf("%s: %s", name, files)
		}
	}
}

func TestNamedContexts(t *testing.T) {
	k := newKit(t)
	other := t.TempDir()
	must(t, os.WriteFile(filepath.Join(other, "f"), []byte("1"), 0o644))
	k.req.Contexts = map[string]string{"more": other, "pinned": "docker-image://base"}
	res, _ := k.dockerfile("FROM pinned\nCOPY --from=more f /f\nRUN --mount=from=more,target=/m cp /m/f /g\n")
	if files := k.files(res); !strings.Contains(files, "f 100600") || !strings.Contains(files, "g 100600") {
		t.Error(files)
	}
}

// victimRole is the build that TestKilledBuildIsCleanedUpByTheNext kills.
const victimRole = "kist-build-victim"

func victimMain() int {
	unix.Umask(0o077)
	req := Request{Context: os.Args[3], Pull: "never"}
	b := openTest(os.Args[1], os.Args[2])
	_, err := b.Build(context.Background(), &req, newDisplay(progressPlain, &ui.Output{Err: os.Stdout}))
	fmt.Println("the build ended by itself:", err)
	return 1
}

func TestKilledBuildIsCleanedUpByTheNext(t *testing.T) {
	k := newKit(t)
	k.file("Dockerfile", "FROM base\nRUN echo 1 > /f\nRUN echo come$((1+1))here; sleep 60\n")
	cmd := reexec.Command(t.Context(), victimRole, k.b.roots.Data, k.b.roots.Run, k.dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "come2here") {
		t.Log(lines.Text())
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	// The guard ends the container and clears up, with nobody's help.
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		left, _ := os.ReadDir(filepath.Join(k.b.roots.Run, "build"))
		scratch, _ := os.ReadDir(k.b.dir("tmp"))
		if len(left)+len(scratch) == 0 {
			break
		}
	}
	k.nothingLeft()
	_, log := k.dockerfile("FROM base\nRUN echo 1 > /f\n")
	if outcome(log) != "+" {
		t.Errorf("the next build does not go on from the last step:\n%s", log)
	}
	k.nothingLeft()
}

func TestNextBuildClearsUpWhenTheGuardDidNot(t *testing.T) {
	k := newKit(t)
	top := filepath.Join(k.b.roots.Run, "build")
	for _, p := range []string{filepath.Join(top, "killed"), k.b.dir("tmp", ".tmp-1", "upper")} {
		must(t, os.MkdirAll(p, 0o700))
	}
	for _, p := range []string{"killed.lock", "before-its-directory.lock"} {
		must(t, os.WriteFile(filepath.Join(top, p), nil, 0o600))
	}
	k.dockerfile("FROM base\nRUN true\n")
	k.nothingLeft()
}
