package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"

	"github.com/kist-containers/kist/internal/state"
)

// A Keychain finds and keeps the credentials of registries, in docker's
// config.json with its helpers and in containers' auth.json.
type Keychain struct {
	// Files are read in this order; the first with credentials for a registry
	// counts. Login writes the first.
	Files []string
	// Env is the text of a config.json that comes before the files: docker's
	// $DOCKER_AUTH_CONFIG.
	Env string
}

// DefaultKeychain reads what docker and podman read. authFile (--authfile), or
// else $REGISTRY_AUTH_FILE, stands for all of them. home is "" for none.
func DefaultKeychain(authFile, home string, getenv func(string) string) *Keychain {
	if authFile == "" {
		authFile = getenv("REGISTRY_AUTH_FILE")
	}
	if authFile != "" {
		return &Keychain{Files: []string{authFile}}
	}
	docker := getenv("DOCKER_CONFIG")
	if docker == "" {
		docker = filepath.Join(home, ".docker")
	}
	files := []string{filepath.Join(docker, "config.json")}
	if run := getenv("XDG_RUNTIME_DIR"); run != "" {
		files = append(files, filepath.Join(run, "containers/auth.json"))
	}
	// Root's own; nobody else may read it, and then it is passed over.
	files = append(files, "/run/containers/0/auth.json", filepath.Join(home, ".config/containers/auth.json"))
	return &Keychain{Files: files, Env: getenv("DOCKER_AUTH_CONFIG")}
}

// dockerHubKey is docker's name of Docker Hub in its files.
const dockerHubKey = "https://index.docker.io/v1/"

// keys are what the files may call the repository, the most specific first.
func keys(host, path string) []string {
	if host == "docker.io" || host == "registry-1.docker.io" || host == "index.docker.io" {
		return []string{dockerHubKey, "docker.io", "index.docker.io"}
	}
	var list []string
	for p := path; p != "" && p != "."; p = parent(p) {
		list = append(list, host+"/"+p)
	}
	return append(list, host)
}

func parent(p string) string {
	i := strings.LastIndexByte(p, '/')
	return p[:max(i, 0)]
}

// Credentials are what a registry is shown. The zero value is none.
type Credentials struct {
	Username, Password string
	// IdentityToken buys tokens in place of the password; RegistryToken is one.
	IdentityToken, RegistryToken string
}

// Lookup returns the credentials for a repository; the zero value for none.
func (k *Keychain) Lookup(_ context.Context, host, path string) (Credentials, error) {
	if k.Env != "" {
		cf := configfile.New("")
		if err := cf.LoadFromReader(strings.NewReader(k.Env)); err != nil {
			return Credentials{}, fmt.Errorf("read $DOCKER_AUTH_CONFIG: %w", err)
		}
		if a, err := lookupRepository(cf, host, path); err != nil || a != (Credentials{}) {
			return a, err
		}
	}
	for _, file := range k.Files {
		cf, err := readAuthFile(file)
		if err != nil {
			return Credentials{}, err
		}
		if cf == nil {
			continue
		}
		if a, err := lookupRepository(cf, host, path); err != nil || a != (Credentials{}) {
			return a, err
		}
	}
	return Credentials{}, nil
}

func lookupRepository(cf *configfile.ConfigFile, host, path string) (Credentials, error) {
	for _, key := range keys(host, path) {
		a, err := lookup(cf, key)
		if err != nil {
			return a, fmt.Errorf("credentials for %s: %w", host, err)
		}
		if a != (Credentials{}) {
			return a, nil
		}
	}
	return Credentials{}, nil
}

func lookup(cf *configfile.ConfigFile, key string) (Credentials, error) {
	helped := cf.CredentialHelpers[key] != "" || cf.CredentialsStore != "" && !strings.Contains(strings.TrimPrefix(key, "https://"), "/")
	helped = helped || cf.CredentialsStore != "" && key == dockerHubKey
	if !helped {
		// Exactly this key: credentials of one repository are not another's.
		a, ok := cf.AuthConfigs[key]
		if !ok {
			a = cf.AuthConfigs["https://"+key]
		}
		return convert(a), nil
	}
	a, err := cf.GetAuthConfig(key)
	return convert(a), err
}

func convert(a types.AuthConfig) Credentials {
	return Credentials{a.Username, a.Password, a.IdentityToken, a.RegistryToken}
}

// readAuthFile returns nil for a file that is not there.
func readAuthFile(file string) (*configfile.ConfigFile, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || err != nil && strings.Contains(err.Error(), "not a directory") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cf := configfile.New(file)
	if err := cf.LoadFromReader(f); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return cf, nil
}

// key is what host is stored under.
func storeKey(host string) string {
	if host == "docker.io" {
		return dockerHubKey
	}
	return host
}

// Store keeps the credentials for host, with the helper that the file names or
// in the file itself, and returns where.
func (k *Keychain) Store(host string, a Credentials) (string, error) {
	file := k.Files[0]
	cf, err := readAuthFile(file)
	if err != nil {
		return "", err
	}
	if helper := helperOf(cf, storeKey(host)); helper != "" {
		err := cf.GetCredentialsStore(storeKey(host)).Store(types.AuthConfig{
			ServerAddress: storeKey(host), Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken,
		})
		return "docker-credential-" + helper, err
	}
	entry := map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))}
	if a.IdentityToken != "" {
		entry = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(a.Username + ":")), "identitytoken": a.IdentityToken}
	}
	return file, editAuths(file, func(auths map[string]any) { auths[storeKey(host)] = entry })
}

func helperOf(cf *configfile.ConfigFile, key string) string {
	if cf == nil {
		return ""
	}
	if h := cf.CredentialHelpers[key]; h != "" {
		return h
	}
	return cf.CredentialsStore
}

// Erase forgets the credentials for host and reports whether there were any.
func (k *Keychain) Erase(host string) (found bool, err error) {
	for _, file := range k.Files {
		cf, err := readAuthFile(file)
		if err != nil {
			return found, err
		}
		if cf == nil {
			continue
		}
		for _, key := range keys(host, "") {
			if helperOf(cf, key) != "" {
				if a, err := cf.GetAuthConfig(key); err == nil && a.Username != "" {
					found = true
					if err := cf.GetCredentialsStore(key).Erase(key); err != nil {
						return found, err
					}
				}
			}
			if _, ok := cf.AuthConfigs[key]; ok {
				found = true
				if err := editAuths(file, func(auths map[string]any) { delete(auths, key) }); err != nil {
					return found, err
				}
			}
		}
	}
	return found, nil
}

// Hosts are the registries with credentials in the files themselves.
func (k *Keychain) Hosts() ([]string, error) {
	var hosts []string
	for _, file := range k.Files {
		cf, err := readAuthFile(file)
		if err != nil {
			return nil, err
		}
		if cf == nil {
			continue
		}
		for key := range cf.AuthConfigs {
			if key == dockerHubKey {
				key = "docker.io"
			}
			hosts = append(hosts, key)
		}
	}
	return hosts, nil
}

// editAuths changes the auths of a file and keeps all other keys as they are.
func editAuths(file string, edit func(map[string]any)) error {
	doc := map[string]any{}
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &doc)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", file, err)
	}
	auths, ok := doc["auths"].(map[string]any)
	if !ok {
		auths = map[string]any{}
	}
	edit(auths)
	doc["auths"] = auths
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return state.WriteJSON(file, doc)
}
