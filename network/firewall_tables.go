package network

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kist-containers/kist/internal/state"
)

// iptables makes nftables' tables when they are first used and never removes them.
// Those that were not there before kist's rules go with the last of them, so that
// the host's ruleset is what it was.

// tablesFile tells which tables were made for kist in which namespace.
func (m *Manager) tablesFile(v6 bool) string {
	return filepath.Join(m.roots.Run, program("iptables", v6)+".tables")
}

// noteTables is called before the chains are made, with all that iptables-save said.
// A note that cannot be kept only leaves an empty table behind one day.
func (m *Manager) noteTables(r *ruleset) {
	if r.nft == nil || r.recalled {
		return
	}
	lines := []string{r.namespace}
	for _, table := range []string{"filter", "nat"} {
		if _, there := r.present[table]; !there {
			lines = append(lines, table)
		}
	}
	if len(lines) > 1 {
		state.WriteVolatile(m.tablesFile(r.v6), []byte(strings.Join(lines, "\n")))
	}
}

// dropTables removes the tables that were made for kist, if they are empty. What
// goes wrong leaves an empty table, which does no harm.
func (m *Manager) dropTables(r *ruleset) {
	data, err := os.ReadFile(m.tablesFile(r.v6))
	if err != nil || r.nft == nil {
		return
	}
	lines := strings.Split(string(data), "\n")
	if lines[0] != r.namespace {
		return
	}
	t := &transaction{r: r}
	if r.at, err = r.nft.generation(); err != nil {
		return
	}
	for _, table := range lines[1:] {
		if r.nft.idle(r.v6, table) {
			t.requests = append(t.requests, nftRequest(unix.NFT_MSG_DELTABLE, r.v6, 0, nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(table))))
		}
	}
	if len(t.requests) == 0 {
		return
	}
	if _, err := t.commit(); err == nil {
		os.Remove(m.knownFile(r.v6))
		os.Remove(m.tablesFile(r.v6))
	}
}

// builtin are the chains that iptables makes with a table.
var builtin = [...]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// idle reports whether a table has no rule, no chain of anybody's own, and lets all
// packets pass.
func (n *nftables) idle(v6 bool, table string) bool {
	rules, err := n.ask(nftRequest(unix.NFT_MSG_GETRULE, v6, unix.NLM_F_DUMP, nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table))), unix.NFTA_RULE_HANDLE)
	if err != nil || len(rules) > 0 {
		return false
	}
	// Asked for all chains of the family, as kernels do not choose among them.
	chains, err := n.replies(nftRequest(unix.NFT_MSG_GETCHAIN, v6, unix.NLM_F_DUMP))
	if err != nil {
		return false
	}
	return !slices.ContainsFunc(chains, func(c []byte) bool { return ofTable(c, table) && !idleChain(c) })
}

func ofTable(chain []byte, table string) bool {
	names, err := attributes(chain, unix.NFTA_CHAIN_TABLE)
	return err != nil || len(names) != 1 || nl.BytesToString(names[0]) == table
}

func idleChain(chain []byte) bool {
	names, err := attributes(chain, unix.NFTA_CHAIN_NAME)
	if err != nil || len(names) != 1 || !slices.Contains(builtin[:], nl.BytesToString(names[0])) {
		return false
	}
	policies, err := attributes(chain, unix.NFTA_CHAIN_POLICY)
	const accept = 1 // NF_ACCEPT
	return err == nil && len(policies) == 1 && len(policies[0]) == 4 && binary.BigEndian.Uint32(policies[0]) == accept
}
