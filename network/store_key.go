package network

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/kist-containers/kist/internal/state"
)

// The secret of an encrypted overlay is in its store, under key/<number>. A new one
// is made every secretAge; hosts open with the last two, and seal with a new one
// once the others have had the time to learn of it.
const (
	secretAge   = 12 * time.Hour
	secretDelay = 5 * storeTick
)

// storedSecret is the value of key/<number>.
type storedSecret struct {
	Secret string    `json:"secret"`
	Made   time.Time `json:"made"`
}

// newBoot chooses the word that goes into this host's keys, as the kernel is about
// to count its packets from zero.
func (m *Manager) newBoot(n *Network) error {
	file := m.bootFile(n)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return state.WriteVolatileJSON(file, rand.Text())
}

func (m *Manager) bootFile(n *Network) string {
	return filepath.Join(m.roots.Run, "network", n.Name, "boot.json")
}

// boot is this host's word, "" for an overlay that is not encrypted.
func (s *store) boot() (word string) {
	if err := state.ReadJSON(s.m.bootFile(s.n), &word); err != nil {
		return ""
	}
	return word
}

// hosts are all hosts of the overlay with their words. This one's is made to be
// what it is.
func (s *store) hosts(ctx context.Context) (map[string]string, error) {
	hosts, err := s.List(ctx, s.prefix+"host/")
	if err != nil {
		return nil, err
	}
	self, word := s.self.String(), s.boot()
	if known, ok := hosts[self]; !ok || known == word {
		return hosts, nil
	}
	var lease string
	if err := state.ReadJSON(s.leaseFile(), &lease); err != nil {
		return nil, err
	}
	hosts[self] = word
	return hosts, s.Put(ctx, s.prefix+"host/"+self, word, lease)
}

// peer is another host's address.
func (s *store) peer(host string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(host)
	return a, err == nil && a != s.self && a.Zone() == "" && !a.IsMulticast() && !a.IsUnspecified()
}

// seal protects what goes between this host and the others.
func (s *store) seal(ctx context.Context, hosts map[string]string) error {
	if !s.n.encrypted() {
		return nil
	}
	vni, err := s.n.vni()
	if err != nil {
		return err
	}
	secrets, err := s.secrets(ctx)
	if err != nil {
		return err
	}
	to := seal{vni: vni, port: s.n.udpPort(), self: s.self, secrets: secrets, boots: map[netip.Addr]string{s.self: hosts[s.self.String()]}}
	var peers []netip.Addr
	for h, word := range hosts {
		if a, ok := s.peer(h); ok && a.Is4() == s.self.Is4() {
			peers = append(peers, a)
			to.boots[a] = word
		}
	}
	return to.apply(peers)
}

// secrets are those of --opt key, or the store's: the first one is for sealing.
func (s *store) secrets(ctx context.Context) ([]secret, error) {
	if file := s.n.Options[optKey]; file != "" {
		return readSecrets(file)
	}
	stored, numbers, err := s.listSecrets(ctx)
	if err != nil {
		return nil, err
	}
	if len(numbers) == 0 {
		if err := s.makeSecret(ctx, 1); err != nil {
			return nil, err
		}
		if stored, numbers, err = s.listSecrets(ctx); err != nil {
			return nil, err
		}
	}
	return chooseSecrets(stored, numbers, time.Now())
}

// chooseSecrets takes the last two, the newer first if it is known long enough.
func chooseSecrets(stored map[int]storedSecret, numbers []int, now time.Time) (list []secret, err error) {
	for _, n := range numbers[:min(2, len(numbers))] {
		if len(stored[n].Secret) < minSecret/2 {
			return nil, fmt.Errorf("store: the secret key/%d is too short", n)
		}
		list = append(list, secret{strconv.Itoa(n), []byte(stored[n].Secret)})
	}
	if len(list) == 0 {
		return nil, errors.New("store: no secret for the encrypted overlay")
	}
	if len(list) == 2 && now.Sub(stored[numbers[0]].Made) < secretDelay {
		slices.Reverse(list)
	}
	return list, nil
}

// listSecrets returns what is in the store and its numbers, the newest first.
func (s *store) listSecrets(ctx context.Context) (map[int]storedSecret, []int, error) {
	list, err := s.List(ctx, s.prefix+"key/")
	if err != nil {
		return nil, nil, err
	}
	stored := map[int]storedSecret{}
	for key, value := range list {
		var v storedSecret
		if n, err := strconv.Atoi(key); err == nil && json.Unmarshal([]byte(value), &v) == nil {
			stored[n] = v
		}
	}
	numbers := slices.Sorted(maps.Keys(stored))
	slices.Reverse(numbers)
	return stored, numbers, nil
}

func (s *store) makeSecret(ctx context.Context, number int) error {
	data, err := json.Marshal(storedSecret{rand.Text() + rand.Text(), time.Now().UTC()})
	if err != nil {
		return err
	}
	_, err = s.Create(ctx, s.prefix+"key/"+strconv.Itoa(number), string(data), "")
	return err
}

// forgetSecrets leaves nothing in the store once no host is in the overlay.
func (s *store) forgetSecrets(ctx context.Context) {
	if hosts, err := s.List(ctx, s.prefix+"host/"); err != nil || len(hosts) > 0 {
		return
	}
	_, numbers, _ := s.listSecrets(ctx)
	for _, n := range numbers {
		s.Delete(ctx, s.prefix+"key/"+strconv.Itoa(n))
	}
}

// rotate makes a new secret when the last one is old: one host's comes first. What
// nobody seals with any more goes.
func (s *store) rotate(ctx context.Context) error {
	if !s.n.encrypted() || s.n.Options[optKey] != "" {
		return nil
	}
	stored, numbers, err := s.listSecrets(ctx)
	if err != nil || len(numbers) == 0 {
		return err
	}
	for _, n := range numbers[min(2, len(numbers)):] {
		if err := s.Delete(ctx, s.prefix+"key/"+strconv.Itoa(n)); err != nil {
			return err
		}
	}
	if time.Since(stored[numbers[0]].Made) < secretAge {
		return nil
	}
	return s.makeSecret(ctx, numbers[0]+1)
}
