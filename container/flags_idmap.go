package container

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// An idWish is one --uidmap or --gidmap.
type idWish struct {
	IDMap
	// uids and gids say what it is for; neither is what the flag is for.
	uids, gids bool
	// adds lets it break into what is there, at first every id as it is.
	adds bool
	// real says that the host's id is one of the machine's, not of this user's
	// namespace.
	real bool
}

// parseIDWish reads podman's [u][g][+]CONTAINER:[@]HOST[:SIZE].
func parseIDWish(s string) (idWish, error) {
	var w idWish
	rest := s
	for rest != "" && strings.ContainsRune("ug+", rune(rest[0])) {
		switch rest[0] {
		case 'u':
			w.uids = true
		case 'g':
			w.gids = true
		case '+':
			w.adds = true
		}
		rest = rest[1:]
	}
	if i := strings.IndexByte(rest, ':'); i >= 0 && strings.HasPrefix(rest[i+1:], "@") {
		w.real = true
		rest = rest[:i+1] + rest[i+2:]
	}
	var err error
	w.IDMap, err = parseIDMap(rest)
	return w, err
}

// idmaps settles --uidmap and --gidmap, --subuidname and --subgidname.
func (f *securityFlags) idmaps(c *Config) error {
	if err := f.subordinate(c); err != nil {
		return err
	}
	s := &c.Spaces
	uids := &idmapper{dst: &s.UIDs, file: "/proc/self/uid_map"}
	gids := &idmapper{dst: &s.GIDs, file: "/proc/self/gid_map"}
	for _, x := range []struct {
		flag string
		list []string
		own  *idmapper
	}{{"--uidmap", f.Uidmap, uids}, {"--gidmap", f.Gidmap, gids}} {
		for _, text := range x.list {
			w, err := parseIDWish(text)
			for _, to := range []struct {
				m      *idmapper
				wanted bool
			}{{uids, w.uids}, {gids, w.gids}, {x.own, !w.uids && !w.gids}} {
				if err == nil && to.wanted {
					err = to.m.add(w)
				}
			}
			if err != nil {
				return fmt.Errorf("%s %w", x.flag, err)
			}
		}
	}
	return gids.complete(uids)
}

// complete lets groups be as they are where a mapping was for users alone.
func (m *idmapper) complete(users *idmapper) error {
	if len(*m.dst) > 0 || !users.alone {
		return nil
	}
	own, err := readIDMap(m.file)
	for _, o := range own {
		*m.dst = append(*m.dst, IDMap{o.Inside, o.Inside, o.Size})
	}
	return err
}

// An idmapper collects the mappings of one kind of id.
type idmapper struct {
	dst  *[]IDMap
	file string // of this process's own mapping
	// alone says that a mapping was for this kind of id and no other.
	alone bool
}

func (m *idmapper) add(w idWish) error {
	m.alone = m.alone || w.uids && !w.gids
	own, err := []IDMap(nil), error(nil)
	if w.real || w.adds {
		if own, err = readIDMap(m.file); err != nil {
			return err
		}
	}
	if w.real {
		// Root's namespace has the machine's own ids.
		id := slices.IndexFunc(own, func(o IDMap) bool {
			return w.Outside >= o.Outside && uint64(w.Outside)+uint64(w.Size) <= uint64(o.Outside)+uint64(o.Size)
		})
		if id < 0 {
			return fmt.Errorf("@%d: not among your ids, nor your subordinate ones", w.Outside)
		}
		w.Outside = own[id].Inside + w.Outside - own[id].Outside
	}
	if !w.adds {
		*m.dst = append(*m.dst, w.IDMap)
		return nil
	}
	if len(*m.dst) == 0 {
		for _, o := range own {
			*m.dst = append(*m.dst, IDMap{o.Inside, o.Inside, o.Size})
		}
	}
	*m.dst = breakInto(*m.dst, w.IDMap)
	return nil
}

// breakInto puts a mapping in the place of those that have one of its ids, on
// either side.
func breakInto(list []IDMap, in IDMap) []IDMap {
	var all []IDMap
	for _, m := range list {
		for _, rest := range m.cut(m.Inside, in.Inside, in.Size) {
			all = append(all, rest.cut(rest.Outside, in.Outside, in.Size)...)
		}
	}
	all = append(all, in)
	slices.SortFunc(all, func(a, b IDMap) int { return int(int64(a.Inside) - int64(b.Inside)) })
	return all
}

// cut is what is left of m without size ids from first on, of the side on which m
// begins with own.
func (m IDMap) cut(own, first, size uint32) []IDMap {
	end, ownEnd := uint64(first)+uint64(size), uint64(own)+uint64(m.Size)
	if end <= uint64(own) || uint64(first) >= ownEnd {
		return []IDMap{m}
	}
	var left []IDMap
	if first > own {
		left = append(left, IDMap{m.Inside, m.Outside, first - own})
	}
	if end < ownEnd {
		skip := uint32(end - uint64(own))
		left = append(left, IDMap{m.Inside + skip, m.Outside + skip, m.Size - skip})
	}
	return left
}

// subordinate maps the ranges of a name in subuid(5) and subgid(5), from 0 up. Each
// name stands for the other too.
func (f *securityFlags) subordinate(c *Config) error {
	users, groups := f.Subuidname, f.Subgidname
	setDefault(&users, groups)
	setDefault(&groups, users)
	if users == "" {
		return nil
	}
	if len(f.Uidmap)+len(f.Gidmap) > 0 || f.Userns != "" {
		return errors.New("--subuidname, --subgidname and --uidmap, --gidmap, --userns contradict each other")
	}
	if os.Geteuid() != 0 || !ownsMachine() {
		return errors.New("--subuidname, --subgidname: your namespace has your own subordinate ids; give them with --uidmap and --gidmap")
	}
	for _, x := range []struct {
		file, name string
		dst        *[]IDMap
	}{{"/etc/subuid", users, &c.Spaces.UIDs}, {"/etc/subgid", groups, &c.Spaces.GIDs}} {
		var err error
		if *x.dst, err = subordinateIDs(x.file, x.name); err != nil {
			return fmt.Errorf("--subuidname, --subgidname: %w", err)
		}
	}
	return nil
}

// ownsMachine reports whether this process's ids are the machine's.
func ownsMachine() bool {
	own, err := readIDMap("/proc/self/uid_map")
	return err == nil && own[0].Outside == 0 && own[0].Inside == 0
}

func subordinateIDs(file, name string) ([]IDMap, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []IDMap
	next := uint32(0)
	for line := range bytes.Lines(data) {
		f := strings.Split(strings.TrimSpace(string(line)), ":")
		if len(f) != 3 || f[0] != name {
			continue
		}
		first, errFirst := strconv.ParseUint(f[1], 10, 32)
		size, errSize := strconv.ParseUint(f[2], 10, 32)
		if err := errors.Join(errFirst, errSize); err != nil {
			return nil, fmt.Errorf("%s: %q", file, line)
		}
		list = append(list, IDMap{next, uint32(first), uint32(size)})
		next += uint32(size)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s has no range of %s", file, name)
	}
	return list, nil
}
