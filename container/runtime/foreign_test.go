package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestForeignReasonIsTheLastErrorOfTheLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	text := `{"level":"warning","msg":"slow"}` + "\n" + `{"level":"error","msg":"first"}` + "\n" + `{"msg":"second","level":"error"}` + "\nnot JSON\n"
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := foreignReason(log); got != "second" {
		t.Errorf("foreignReason = %q, want second", got)
	}
}

func TestProgramErrorTellsWhatTheProgramLacks(t *testing.T) {
	proc := &specs.Process{Args: []string{"/bin/prog"}}
	for text, want := range map[string]string{
		"crun create: executable file `/bin/prog` not found in $PATH: No such file or directory": "not found",
		`runc create: exec: "/bin/prog": stat /bin/prog: no such file or directory`:              "not found",
		`runc create: exec: "/bin/prog": permission denied`:                                      "not executable",
		"crun create: open executable: Operation not permitted":                                  "not executable",
		"runc create: error mounting /x: no such file or directory":                              "",
		"crun create: cannot set memory limit for /bin/prog":                                     "",
	} {
		var start *StartError
		got := ""
		if errors.As(programError(errors.New(text), proc), &start) {
			if got = "not executable"; start.NotFound() {
				got = "not found"
			}
		}
		if got != want {
			t.Errorf("programError(%q) says %q, want %q", text, got, want)
		}
	}
}
