package network

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
)

// The kernel counts the changes of a namespace's nftables. While the number is the
// one that kist's rules were last seen at, they are as they were: nobody need start
// iptables-save to learn it. What is known is a text that grows: a line with its
// version and the namespace; the rules as iptables-save prints them, each after its
// handle in hexadecimal where that is known, or after ! when it is removed; and after
// all that is of a generation a line with its number.
const knownVersion = "4"

func (m *Manager) knownFile(v6 bool) string {
	return filepath.Join(m.roots.Run, program("iptables", v6)+".known")
}

// ours are the lines of kist's chains and of the jumps to them.
func (p present) ours() present {
	lines := present{}
	for table, all := range p {
		for _, line := range all {
			if strings.Contains(line, "KIST-") {
				lines[table] = append(lines[table], line)
			}
		}
	}
	return lines
}

// A ruleset is kist's rules of one family as they are.
type ruleset struct {
	present
	v6 bool
	// handles are the kernel's names of rules, where known, by the rules' keys.
	handles map[string][]byte
	// nft is nil where iptables uses the old tables, which nobody counts.
	nft *nftables
	// counted says that the rules are those of generation at in a namespace.
	counted   bool
	at        uint32
	namespace string
	// recalled says that they were not looked at, and are kist's alone.
	recalled bool
	// grown is how many lines the file has, since when it was written anew.
	grown int
}

// close ends what loadRules began.
func (r *ruleset) close() {
	if r.nft != nil {
		r.nft.close()
	}
}

// key names a rule among those of its family.
func (r rule) key() string { return r.table + r.String() }

// loadRules returns kist's rules as they are, to be closed.
func (m *Manager) loadRules(ctx context.Context, v6 bool) (*ruleset, error) {
	r := &ruleset{present: present{}, v6: v6, handles: map[string][]byte{}}
	var err error
	if r.nft, err = openNftables(); err == nil {
		r.namespace, err = r.nft.namespaceID()
	}
	if err == nil {
		r.at, err = r.nft.generation()
	}
	if r.counted = err == nil; r.counted {
		if known, err := os.ReadFile(m.knownFile(v6)); err == nil && r.recall(string(known)) {
			r.recalled = true
			return r, nil
		}
	}
	if r.present, err = savedRules(ctx, v6); err != nil {
		r.close()
		return nil, err
	}
	m.remember(r, "")
	return r, nil
}

func (r *ruleset) heading() string { return knownVersion + " " + r.namespace + "\n" }
func (r *ruleset) ending() string  { return fmt.Sprintf("=%d\n", r.at) }

// recall reads known rules, and reports whether they are those of now.
func (r *ruleset) recall(known string) bool {
	known, ok := strings.CutPrefix(known, r.heading())
	if !ok || !strings.HasSuffix(known, "\n"+r.ending()) {
		return false
	}
	table := ""
	var gone []string // of the table, one after the other
	for line := range strings.Lines(known) {
		r.grown++
		line = strings.TrimSuffix(line, "\n")
		if line[0] == '!' {
			gone = append(gone, line[1:])
			delete(r.handles, table+line[1:])
			continue
		}
		r.delete(table, gone...)
		gone = nil
		switch line[0] {
		case '*':
			table = line[1:]
		case '=':
		case ':', '-':
			r.present[table] = append(r.present[table], line)
		default:
			handle, rule, _ := strings.Cut(line, " ")
			r.present[table] = append(r.present[table], rule)
			r.handles[table+rule], _ = hex.DecodeString(handle)
		}
	}
	return true
}

// remember keeps what the rules are, if the generation is still that one: the changes,
// or all of them. What cannot be kept is looked at again.
func (m *Manager) remember(r *ruleset, changes string) {
	if !r.counted {
		return
	}
	file := m.knownFile(r.v6)
	if now, err := r.nft.generation(); err != nil || now != r.at {
		r.counted = false
		os.Remove(file)
		return
	}
	live := 0
	for _, lines := range r.present {
		live += len(lines)
	}
	if changes == "" || r.grown > 2*live+100 {
		state.WriteVolatile(file, []byte(r.heading()+r.text()+r.ending()))
		return
	}
	if f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0); err == nil {
		f.WriteString(changes + r.ending())
		f.Close()
	}
}

// text is what is known of all rules.
func (r *ruleset) text() string {
	var text strings.Builder
	for table, lines := range r.ours() {
		text.WriteString("*" + table + "\n")
		for _, line := range lines {
			text.WriteString(r.known(table, line))
		}
	}
	return text.String()
}

// known is a line after its handle, if that is known.
func (r *ruleset) known(table, line string) string {
	if handle := r.handles[table+line]; handle != nil {
		line = hex.EncodeToString(handle) + " " + line
	}
	return line + "\n"
}

// change runs a script against the rules that were loaded.
func (m *Manager) change(ctx context.Context, r *ruleset, s script) error {
	if len(s) == 0 {
		return nil
	}
	changes := ""
	err := r.apply(s)
	if err == nil {
		changes = r.changes(s)
	} else if errors.Is(err, errors.ErrUnsupported) {
		err = s.run(ctx, r.v6)
		r.at += uint32(len(s)) // each table is one change
		r.forget(s)
	}
	if err != nil {
		return err
	}
	for table, lines := range s {
		r.present.change(table, lines.String())
	}
	m.remember(r, changes)
	return nil
}

// changes is a script that was applied, as it is remembered.
func (r *ruleset) changes(s script) string {
	var text strings.Builder
	for table, lines := range s {
		text.WriteString("*" + table + "\n")
		for line := range strings.Lines(lines.String()) {
			if rule, removed := strings.CutPrefix(line, "-D "); removed {
				text.WriteString("!-A " + rule)
			} else {
				text.WriteString(r.known(table, strings.TrimSuffix(line, "\n")))
			}
		}
	}
	return text.String()
}

// forget drops the handles of rules that were made or removed without a word of them.
func (r *ruleset) forget(s script) {
	for table, lines := range s {
		for line := range strings.Lines(lines.String()) {
			if w := strings.Fields(line); len(w) > 2 {
				delete(r.handles, rule{r.v6, table, w[1], w[2:]}.key())
			}
		}
	}
}

// change applies what was done to one table.
func (p present) change(table, lines string) {
	var gone []string // by lines one after the other
	for line := range strings.Lines(lines) {
		w := strings.Fields(line)
		if w[0] == "-D" {
			gone = append(gone, "-A "+strings.Join(w[1:], " "))
			continue
		}
		p.delete(table, gone...)
		gone = nil
		switch w[0] {
		case "-A":
			p[table] = append(p[table], strings.Join(w, " "))
		case "-I": // chain, place
			p.insert(table, w[1], w[2], "-A "+w[1]+" "+strings.Join(w[3:], " "))
		case "-X":
			p.delete(table, ":"+w[1])
		}
	}
	p.delete(table, gone...)
}

// insert puts a rule at its place in a chain, which is counted from 1.
func (p present) insert(table, chain, place, rule string) {
	n, _ := strconv.Atoi(place)
	for i, line := range p[table] {
		if strings.HasPrefix(line, "-A "+chain+" ") {
			if n--; n == 0 {
				p[table] = slices.Insert(p[table], i, rule)
				return
			}
		}
	}
	p[table] = append(p[table], rule)
}

// delete removes the first of each line, as often as it is given.
func (p present) delete(table string, lines ...string) {
	if len(lines) == 0 {
		return
	}
	times := map[string]int{}
	for _, line := range lines {
		times[line]++
	}
	p[table] = slices.DeleteFunc(p[table], func(line string) bool {
		if times[line] == 0 {
			return false
		}
		times[line]--
		return true
	})
}

// namespaceID tells which network namespace of which boot the socket is in. The
// kernel never uses a cookie again, since Linux 5.14, but may the number of a file.
func (n *nftables) namespaceID() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(boot))
	if cookie, err := unix.GetsockoptUint64(n.h.Socket.GetFd(), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil {
		return fmt.Sprintf("%d@%s", cookie, id), nil
	}
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%d@%s", ns.Dev, ns.Ino, id), nil
}
