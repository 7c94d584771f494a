package network

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Every call of iptables costs milliseconds, so the rules of any number of
// networks and ports are compared with one iptables-save and changed with one
// iptables-restore, which is atomic for each table.

// A block is rules that hold only together and in their order.
type block struct {
	// top blocks stand before the rules that are appended.
	top   bool
	rules []rule
}

// String is the rule as iptables-save prints it, which is how rules are compared:
// so every rule is written in its order, addresses with their prefix length.
func (r rule) String() string { return "-A " + r.chain + " " + strings.Join(r.spec, " ") }

// present are the lines of each table in their order: ":CHAIN" for a chain, else a
// rule.
type present map[string][]string

func (p present) rule(r rule) bool           { return slices.Contains(p[r.table], r.String()) }
func (p present) chain(table, c string) bool { return slices.Contains(p[table], ":"+c) }

// among are those of the blocks' rules that are there, by their keys: one look at
// each line, however many are asked for.
func (p present) among(blocks []block) map[string]bool {
	asked := map[string]map[string]string{}
	for _, b := range blocks {
		for _, r := range b.rules {
			if asked[r.table] == nil {
				asked[r.table] = map[string]string{}
			}
			asked[r.table][r.String()] = r.key()
		}
	}
	there := map[string]bool{}
	for table, rules := range asked {
		for _, line := range p[table] {
			if key, ok := rules[line]; ok {
				there[key] = true
			}
		}
	}
	return there
}

// inChain are the rules of a chain.
func (p present) inChain(table, chain string) (rules []string) {
	for _, line := range p[table] {
		if strings.HasPrefix(line, "-A "+chain+" ") {
			rules = append(rules, line)
		}
	}
	return rules
}

// tool is the path of a system administrator's program: the monitor has no PATH,
// and many a user's lacks sbin.
func tool(name string) string {
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"} {
		if path := filepath.Join(dir, name); unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	return name
}

// program is iptables-save or ip6tables-save, and so on.
func program(name string, v6 bool) string {
	if v6 {
		return strings.Replace(name, "ip", "ip6", 1)
	}
	return name
}

// ofFamily are the blocks with only the rules of one family.
func ofFamily(blocks []block, v6 bool) (list []block) {
	for _, b := range blocks {
		var rules []rule
		for _, r := range b.rules {
			if r.v6 == v6 {
				rules = append(rules, r)
			}
		}
		if len(rules) > 0 {
			list = append(list, block{b.top, rules})
		}
	}
	return list
}

// savedRules is Like: iptables-save
func savedRules(ctx context.Context, v6 bool) (present, error) {
	save := program("iptables-save", v6)
	out, err := exec.CommandContext(ctx, tool(save)).Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w (install iptables, or use --firewall none)", save, err)
	}
	return parseRules(string(out)), nil
}

func parseRules(saved string) present {
	p, table := present{}, ""
	for line := range strings.Lines(saved) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
			p[table] = nil
		case strings.HasPrefix(line, ":") && table != "":
			name, _, _ := strings.Cut(line, " ")
			p[table] = append(p[table], name)
		case strings.HasPrefix(line, "-A ") && table != "":
			p[table] = append(p[table], line)
		}
	}
	return p
}

// script is what iptables-restore reads.
type script map[string]*bytes.Buffer

func (s script) add(table, line string) {
	if s[table] == nil {
		s[table] = new(bytes.Buffer)
	}
	s[table].WriteString(line + "\n")
}

// addMissing plans the rules that are not there. Of a block at the top none may
// come to stand before one it has to follow, so all of it is made anew.
func (s script) addMissing(have present, blocks ...block) {
	there := have.among(blocks)
	for _, b := range blocks {
		s.addBlock(there, b)
	}
}

func (s script) addBlock(there map[string]bool, b block) {
	missing := func(r rule) bool { return !there[r.key()] }
	if !slices.ContainsFunc(b.rules, missing) {
		return
	}
	if b.top {
		s.removeBlock(there, b)
	}
	for i, r := range b.rules {
		switch {
		case b.top:
			s.add(r.table, fmt.Sprintf("-I %s %d %s", r.chain, i+1, strings.Join(r.spec, " ")))
		case missing(r):
			s.add(r.table, r.String())
		}
	}
}

// remove plans the removal of the rules that are there.
func (s script) remove(have present, blocks ...block) {
	there := have.among(blocks)
	for _, b := range blocks {
		s.removeBlock(there, b)
	}
}

func (s script) removeBlock(there map[string]bool, b block) {
	for _, r := range b.rules {
		if there[r.key()] {
			s.add(r.table, "-D "+strings.TrimPrefix(r.String(), "-A "))
		}
	}
}

// run is Like: iptables-restore --noflush
func (s script) run(ctx context.Context, v6 bool) error {
	if len(s) == 0 {
		return nil
	}
	var in bytes.Buffer
	for table, lines := range s {
		fmt.Fprintf(&in, "*%s\n%sCOMMIT\n", table, lines)
	}
	restore := program("iptables-restore", v6)
	cmd := exec.CommandContext(ctx, tool(restore), "--noflush", "--wait", "5")
	cmd.Stdin = &in
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", restore, err, bytes.TrimSpace(out))
	}
	return nil
}
