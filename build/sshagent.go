package build

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/kist-containers/kist/internal/ui"
)

// An Agent is what RUN --mount=type=ssh reaches: an agent's socket, or the keys
// of one that lives in the build itself.
type Agent struct {
	Socket string
	keys   agent.Agent
}

// parseSSH reads default or ID[=SOCKET|KEY[,KEY…]].
func parseSSH(flags []string) (map[string]Agent, error) {
	all := map[string]Agent{}
	for _, f := range flags {
		id, places, ok := strings.Cut(f, "=")
		if !ok {
			places = os.Getenv("SSH_AUTH_SOCK")
		}
		if id == "" {
			return nil, fmt.Errorf("--ssh %s: want default or ID=SOCKET or ID=KEY", f)
		}
		if places == "" {
			return nil, ui.Hint(fmt.Errorf("--ssh %s: no agent runs here, as SSH_AUTH_SOCK is not set", f), "--ssh %s=KEYFILE", id)
		}
		a, err := openAgent(strings.Split(places, ","))
		if err != nil {
			return nil, fmt.Errorf("--ssh %s: %w", f, err)
		}
		all[id] = a
	}
	return all, nil
}

func openAgent(places []string) (Agent, error) {
	var a Agent
	for _, place := range places {
		st, err := os.Stat(place)
		switch {
		case err != nil:
			return a, err
		case st.Mode()&os.ModeSocket != 0 && len(places) > 1:
			return a, fmt.Errorf("%s: an agent's socket stands alone", place)
		case st.Mode()&os.ModeSocket != 0:
			return Agent{Socket: place}, nil
		}
		if a.keys == nil {
			a.keys = agent.NewKeyring()
		}
		if err := a.add(place); err != nil {
			return a, fmt.Errorf("%s: %w", place, err)
		}
	}
	return a, nil
}

// maxKey bounds a private key's file, as BuildKit does.
const maxKey = 100 << 10

func (a *Agent) add(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return err
	}
	key, err := ssh.ParseRawPrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return ui.Hint(errors.New("the key has a passphrase"), "ssh-add %s, and --ssh default", file)
	}
	if err != nil {
		return errors.New("neither an agent's socket nor a private key")
	}
	return a.keys.Add(agent.AddedKey{PrivateKey: key, Comment: file})
}

// serve speaks with one client of the step, and ends when that hangs up.
func (a *Agent) serve(conn net.Conn) {
	defer conn.Close()
	if a.keys != nil {
		agent.ServeAgent(readOnly{a.keys}, conn) // its error is the client's end
		return
	}
	up, err := net.Dial("unix", a.Socket)
	if err != nil {
		return
	}
	defer up.Close()
	go func() {
		io.Copy(up, conn)
		up.(*net.UnixConn).CloseWrite()
	}()
	io.Copy(conn, up)
}

// readOnly is an agent whose keys a step may use and not change.
type readOnly struct{ agent.Agent }

var errReadOnly = errors.New("the build's agent takes no changes")

func (readOnly) Add(agent.AddedKey) error   { return errReadOnly }
func (readOnly) Remove(ssh.PublicKey) error { return errReadOnly }
func (readOnly) RemoveAll() error           { return errReadOnly }
func (readOnly) Lock([]byte) error          { return errReadOnly }
func (readOnly) Unlock([]byte) error        { return errReadOnly }
