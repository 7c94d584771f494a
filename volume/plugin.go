package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kist-containers/kist/internal/state"
	"github.com/kist-containers/kist/internal/ui"
)

// plugin is a driver of docker's volume plugin protocol: JSON by POST over a unix
// socket NAME.sock. See docs.docker.com/engine/extend/plugins_volume.
type plugin struct {
	name string
	dirs []string
}

// pluginDirs are where sockets and .spec files stand; kist's own come first.
func (s *Store) pluginDirs() []string {
	return []string{filepath.Join(s.roots.Run, "plugins"), "/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"}
}

const (
	pluginTimeout = 2 * time.Minute
	mostAnswer    = 1 << 20 // bytes
)

// socket finds the plugin's socket: NAME.sock, NAME/NAME.sock, or what NAME.spec
// says (unix:// only).
func (p plugin) socket() (string, error) {
	if !state.ValidName(p.name) {
		return "", fmt.Errorf("driver %q: not a name", p.name)
	}
	for _, dir := range p.dirs {
		for _, path := range []string{filepath.Join(dir, p.name+".sock"), filepath.Join(dir, p.name, p.name+".sock")} {
			if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
				return path, nil
			}
		}
		if data, err := os.ReadFile(filepath.Join(dir, p.name+".spec")); err == nil {
			if path, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "unix://"); ok {
				return path, nil
			}
		}
	}
	return "", ui.Hint(fmt.Errorf("driver %q: no such driver", p.name), "a plugin listens on %s", filepath.Join(p.dirs[1], p.name+".sock"))
}

// An answer is what any call may bring.
type answer struct {
	Implements []string
	Mountpoint string
	Volumes    []struct{ Name string }
	Err        string
}

func decodeAnswer(r io.Reader) (a answer, err error) {
	data, err := io.ReadAll(io.LimitReader(r, mostAnswer+1))
	switch {
	case err != nil:
		return a, err
	case len(data) > mostAnswer:
		return a, errors.New("the answer is too long")
	case len(bytes.TrimSpace(data)) == 0:
		return a, nil
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return answer{}, fmt.Errorf("the answer is not what the protocol says: %w", err)
	}
	return a, nil
}

func (p plugin) call(ctx context.Context, method string, request any) (answer, error) {
	a, err := p.post(ctx, method, request)
	if err != nil {
		return a, fmt.Errorf("driver %s: %s: %w", p.name, method[strings.IndexByte(method, '.')+1:], err)
	}
	return a, nil
}

func (p plugin) post(ctx context.Context, method string, request any) (a answer, err error) {
	path, err := p.socket()
	if err != nil {
		return a, err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return a, err
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	var dialer net.Dialer
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", path)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/"+method, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Accept", "application/vnd.docker.plugins.v1.1+json")
	req.Header.Set("Content-Type", "application/vnd.docker.plugins.v1.1+json")
	res, err := transport.RoundTrip(req)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	a, err = decodeAnswer(res.Body)
	switch {
	case a.Err != "":
		return a, errors.New(a.Err)
	case res.StatusCode != http.StatusOK:
		return a, errors.New(res.Status)
	}
	return a, err
}

// named is the request of every call on one volume. ID tells the users of it
// apart; kist asks once for all of them.
type named struct {
	Name string
	Opts map[string]string `json:",omitempty"`
	ID   string            `json:",omitempty"`
}

func (p plugin) check(ctx context.Context, _ *Volume) error {
	a, err := p.call(ctx, "Plugin.Activate", struct{}{})
	if err != nil {
		return err
	}
	for _, i := range a.Implements {
		if i == "VolumeDriver" {
			return nil
		}
	}
	return fmt.Errorf("driver %s: the plugin is none for volumes", p.name)
}

func (p plugin) create(ctx context.Context, v *Volume, _ string) error {
	_, err := p.call(ctx, "VolumeDriver.Create", named{Name: v.Name, Opts: v.Options})
	return err
}

func (p plugin) remove(ctx context.Context, v *Volume) error {
	_, err := p.call(ctx, "VolumeDriver.Remove", named{Name: v.Name})
	return err
}

func (p plugin) mounts(*Volume) bool { return true }

func (p plugin) mount(ctx context.Context, v *Volume, _ string) (string, error) {
	a, err := p.call(ctx, "VolumeDriver.Mount", named{Name: v.Name, ID: "kist"})
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(a.Mountpoint) {
		return "", fmt.Errorf("driver %s: Mount: %q is not an absolute path", p.name, a.Mountpoint)
	}
	if info, err := os.Stat(a.Mountpoint); err != nil || !info.IsDir() {
		return "", fmt.Errorf("driver %s: Mount: %s is not a directory", p.name, a.Mountpoint)
	}
	return filepath.Clean(a.Mountpoint), nil
}

func (p plugin) unmount(ctx context.Context, v *Volume, _ string) error {
	_, err := p.call(ctx, "VolumeDriver.Unmount", named{Name: v.Name, ID: "kist"})
	return err
}
