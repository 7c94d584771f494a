package build

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// keyFile writes a private key, locked by the passphrase unless that is "".
func keyFile(t *testing.T, passphrase string) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	must(t, err)
	path := filepath.Join(t.TempDir(), "id")
	must(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	return path
}

func TestSSHKeysAreUsedAndNotChanged(t *testing.T) {
	one, two := keyFile(t, ""), keyFile(t, "")
	all, err := parseSSH([]string{"deploy=" + one + "," + two})
	must(t, err)
	a := all["deploy"]
	ours, theirs := net.Pipe()
	go a.serve(theirs)
	c := agent.NewClient(ours)
	keys, err := c.List()
	must(t, err)
	if len(keys) != 2 {
		t.Fatalf("the agent has %d keys, want 2", len(keys))
	}
	sig, err := c.Sign(keys[0], []byte("data"))
	must(t, err)
	must(t, keys[0].Verify([]byte("data"), sig))
	if err := c.RemoveAll(); err == nil {
		t.Error("a step can remove the keys")
	}
	if keys, _ := c.List(); len(keys) != 2 {
		t.Errorf("%d keys are left", len(keys))
	}
}

func TestSSHBadFlags(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	text := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(text, []byte("no key"), 0o600))
	for flag, want := range map[string]string{
		"default":                          "SSH_AUTH_SOCK",
		"=x":                               "want default",
		"x=/nonexistent":                   "no such file",
		"x=" + text:                        "neither an agent's socket nor a private key",
		"x=" + keyFile(t, "secret"):        "passphrase",
		"x=" + keyFile(t, "") + "," + text: "neither",
	} {
		if _, err := parseSSH([]string{flag}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--ssh %s: %v, want %q", flag, err, want)
		}
	}
}
