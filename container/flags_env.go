package container

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// environment is what -e and --env-file set, files first as in docker.
func (f *createFlags) environment() ([]string, error) {
	var env []string
	if f.EnvHost {
		env = os.Environ()
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
		if key == "" || strings.ContainsAny(key, " \t") {
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
