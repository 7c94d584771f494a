package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
)

// The kernel counts the changes of a namespace's nftables. While the number is the
// one that kist's rules were last seen at, they are as they were: nobody need start
// iptables-save to learn it.
type knownRules struct {
	Version    int                 `json:"version"`
	Namespace  string              `json:"namespace"`
	Generation uint32              `json:"generation"`
	Lines      map[string][]string `json:"lines"`
}

func (m *Manager) knownFile(v6 bool) string {
	return filepath.Join(m.roots.Run, program("iptables", v6)+".json")
}

// ours are the lines of kist's chains and of the jumps to them.
func (p present) ours() map[string][]string {
	lines := map[string][]string{}
	for table, all := range p {
		for line := range all {
			if strings.Contains(line, "KIST-") {
				lines[table] = append(lines[table], line)
			}
		}
	}
	return lines
}

// loadRules returns kist's rules as they are.
func (m *Manager) loadRules(ctx context.Context, v6 bool) (present, error) {
	at, namespace, err := generation()
	if err != nil {
		return savedRules(ctx, v6) // by the old tables, which nobody counts
	}
	var known knownRules
	if state.ReadJSON(m.knownFile(v6), &known) == nil && known.Generation == at && known.Namespace == namespace {
		p := present{}
		for table, lines := range known.Lines {
			p[table] = map[string]bool{}
			for _, line := range lines {
				p[table][line] = true
			}
		}
		return p, nil
	}
	have, err := savedRules(ctx, v6)
	if err == nil {
		m.remember(have, at, v6)
	}
	return have, err
}

// remember keeps what the rules are, if the generation is still that one. What
// cannot be kept is looked at again.
func (m *Manager) remember(have present, at uint32, v6 bool) {
	now, namespace, err := generation()
	if err != nil || now != at {
		os.Remove(m.knownFile(v6))
		return
	}
	state.WriteVolatileJSON(m.knownFile(v6), knownRules{1, namespace, at, have.ours()})
}

// change runs a script against the rules that were loaded.
func (m *Manager) change(ctx context.Context, have present, s script, v6 bool) error {
	if len(s) == 0 {
		return nil
	}
	at, _, errGeneration := generation()
	if err := s.run(ctx, v6); err != nil || errGeneration != nil {
		return err
	}
	for table, lines := range s {
		have.change(table, lines.String())
	}
	m.remember(have, at+uint32(len(s)), v6) // each table is one change
	return nil
}

// change applies what iptables-restore has done.
func (p present) change(table, lines string) {
	if p[table] == nil {
		p[table] = map[string]bool{}
	}
	for line := range strings.Lines(lines) {
		w := strings.Fields(line)
		switch w[0] {
		case "-A":
			p[table][strings.Join(w, " ")] = true
		case "-I": // chain, place
			p[table]["-A "+w[1]+" "+strings.Join(w[3:], " ")] = true
		case "-D":
			delete(p[table], "-A "+strings.Join(w[1:], " "))
		case "-X":
			delete(p[table], ":"+w[1])
		}
	}
}

// generation is the count of changes to nftables in this network namespace, and
// which namespace of which boot this is. It fails where iptables uses the old tables.
func generation() (uint32, string, error) {
	if program, err := filepath.EvalSymlinks(tool("iptables-restore")); err != nil || !strings.Contains(filepath.Base(program), "nft") {
		return 0, "", errors.Join(err, errors.ErrUnsupported)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return 0, "", err
	}
	var ns unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return 0, "", err
	}
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: unix.NFNETLINK_V0})
	replies, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return 0, "", fmt.Errorf("ask for the generation of nftables: %w", err)
	}
	for _, r := range replies {
		attrs, err := nl.ParseRouteAttr(r[nl.SizeofNfgenmsg:])
		if err != nil {
			return 0, "", err
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.NFTA_GEN_ID && len(a.Value) == 4 {
				return binary.BigEndian.Uint32(a.Value), fmt.Sprintf("%d:%d@%s", ns.Dev, ns.Ino, strings.TrimSpace(string(boot))), nil
			}
		}
	}
	return 0, "", errors.ErrUnsupported
}
