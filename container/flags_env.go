package container

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// envFlags are podman's on variables.
type envFlags struct {
	EnvHost     bool     `help:"Take over the caller's variables."`
	EnvMerge    []string `sep:"none" help:"Set a variable from the image's: PATH=$$PATH:/opt." placeholder:"KEY=VALUE"`
	Unsetenv    []string `name:"unsetenv" sep:"none" help:"Drop a variable of the image." placeholder:"KEY"`
	UnsetenvAll bool     `name:"unsetenv-all" help:"Drop all variables of the image."`
	HttpProxy   bool     `name:"http-proxy" negatable:"" help:"Pass the caller's proxy variables on."`
}

// imageEnv is what the container takes of the image's variables.
func (f *envFlags) imageEnv(image []string) []string {
	if f.UnsetenvAll {
		image = nil
	}
	env := slices.DeleteFunc(slices.Clone(image), func(e string) bool {
		key, _, _ := strings.Cut(e, "=")
		return slices.Contains(f.Unsetenv, key)
	})
	for _, e := range f.EnvMerge {
		key, value, _ := strings.Cut(e, "=")
		value = os.Expand(value, func(name string) string { return lookup(env, name) })
		env = mergeEnv(env, []string{key + "=" + value})
	}
	return env
}

// lookup is the value of a variable, "" for none.
func lookup(env []string, name string) string {
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// proxyVariables are those that tell programs of a proxy.
var proxyVariables = [...]string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"}

// environment is what -e and --env-file set, files first as in docker.
func (f *createFlags) environment() ([]string, error) {
	var env []string
	if f.EnvHost {
		env = os.Environ()
	}
	if f.HttpProxy {
		for _, name := range proxyVariables {
			if v, set := os.LookupEnv(name); set {
				env = append(env, name+"="+v)
			}
		}
	}
	for _, e := range f.EnvMerge {
		if key, _, ok := strings.Cut(e, "="); !ok || key == "" {
			return nil, fmt.Errorf("--env-merge %s: want KEY=VALUE", e)
		}
	}
	for _, name := range f.EnvFile {
		lines, err := readPairs(name)
		if err != nil {
			return nil, fmt.Errorf("--env-file %s: %w", name, err)
		}
		env = append(env, lines...)
	}
	for _, e := range f.Env {
		key, _, ok := strings.Cut(e, "=")
		if key == "" || strings.ContainsRune(e, 0) {
			return nil, fmt.Errorf("-e %s: no variable's name", e)
		}
		if prefix, all := strings.CutSuffix(key, "*"); !ok && all {
			env = append(env, slices.DeleteFunc(os.Environ(), func(v string) bool { return !strings.HasPrefix(v, prefix) })...)
			continue
		}
		if !ok {
			v, set := os.LookupEnv(key)
			if !set {
				continue // docker: a variable that the caller does not have
			}
			e = key + "=" + v
		}
		env = append(env, e)
	}
	return env, nil
}

// readPairs reads a file of KEY=VALUE or KEY lines, "#" for comments.
func readPairs(name string) ([]string, error) {
	file, err := os.Open(name)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			return nil, path.Err
		}
		return nil, err
	}
	defer file.Close()
	var pairs []string
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeft(strings.TrimPrefix(lines.Text(), "\ufeff"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, ok := strings.Cut(line, "=")
		if key == "" || strings.ContainsAny(key, " \t") || strings.ContainsRune(line, 0) {
			return nil, fmt.Errorf("line %d: %q is no variable's name", n, key)
		}
		if !ok {
			v, set := os.LookupEnv(key)
			if !set {
				continue
			}
			line = key + "=" + v
		}
		pairs = append(pairs, line)
	}
	return pairs, lines.Err()
}

func pairs(list []string) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := map[string]string{}
	for _, s := range list {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return m
}
