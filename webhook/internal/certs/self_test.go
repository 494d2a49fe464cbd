package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var birth = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// cluster is an API server, as far as certificates know one. It is used by one goroutine at a time.
type cluster struct {
	now      time.Time
	version  int
	secrets  map[string]Secret
	bundles  [][]byte
	path     string // of all webhooks
	others   bool
	webhooks int    // version of the configuration
	before   func() // each request
}

func newCluster() *cluster {
	return &cluster{now: birth, secrets: map[string]Secret{"webhook": {Version: "0"}, "relay": {Version: "0"}}, bundles: make([][]byte, 2), before: func() {}}
}

func (c *cluster) Secret(_ context.Context, name string) (*Secret, error) {
	c.before()
	s, ok := c.secrets[name]
	if !ok {
		return nil, ErrNotFound
	}
	return &s, nil
}

func (c *cluster) WriteSecret(_ context.Context, name, version string, data map[string][]byte) error {
	c.before()
	s, ok := c.secrets[name]
	if !ok || s.Version != version {
		return ErrConflict
	}
	c.version++
	s.Version, s.Data = strconv.Itoa(c.version), maps.Clone(data)
	c.secrets[name] = s
	return nil
}

func (c *cluster) Configuration(context.Context) (*Configuration, error) {
	c.before()
	if c.bundles == nil {
		return nil, ErrNotFound
	}
	read := &Configuration{Version: strconv.Itoa(c.webhooks)}
	for _, b := range c.bundles {
		read.Webhooks = append(read.Webhooks, Client{Bundle: b, Path: c.path})
	}
	return read, nil
}

func (c *cluster) Others(context.Context) (bool, error) {
	c.before()
	return c.others, nil
}

func (c *cluster) WriteClients(_ context.Context, read *Configuration, bundle []byte, path string) error {
	c.before()
	if read.Version != strconv.Itoa(c.webhooks) {
		return ErrConflict
	}
	c.webhooks++
	c.path = path
	for i := range c.bundles {
		c.bundles[i] = bundle
	}
	return nil
}

var names = []string{"apss-webhook.apss.svc", "10.0.0.1"}

const grace = 10 * 24 * time.Hour

func (c *cluster) replica(change func(*SelfConfig)) *Self {
	config := SelfConfig{
		Store: c, Secret: "webhook", Names: names, RelaySecret: "relay", RelayNames: []string{"apss-relay.apss.svc"}, Grace: grace,
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return c.now },
	}
	if change != nil {
		change(&config)
	}
	return NewSelf(config)
}

// verified returns why a certificate is not what everyone trusts who has the bundle.
func verified(leaf *x509.Certificate, bundle []byte, name string, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now})
	return err
}

func keep(t *testing.T, s *Self) {
	t.Helper()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestFirstStart(t *testing.T) {
	c := newCluster()
	var bundle []byte
	s := c.replica(func(c *SelfConfig) { c.Changed = func(b []byte) { bundle = b } })
	if _, err := s.Certificate(nil); err == nil || s.Ready() == nil {
		t.Error("it is ready before it has a certificate")
	}
	keep(t, s)
	served, err := s.Certificate(nil)
	if err != nil || s.Ready() != nil {
		t.Fatal(err, s.Ready())
	}
	for i, b := range c.bundles {
		for _, name := range names {
			if err := verified(served.Leaf, b, name, c.now); err != nil {
				t.Errorf("webhook %d, %s: %v", i, name, err)
			}
		}
	}
	if !bytes.Equal(bundle, c.bundles[0]) {
		t.Error("nobody was told of the bundle")
	}
	relay := c.secrets["relay"].Data
	pair, err := parsePair(relay["tls.crt"], relay["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	if err := verified(pair.Cert, relay["ca.crt"], "apss-relay.apss.svc", c.now); err != nil {
		t.Errorf("the relay's: %v", err)
	}
	want := map[string]time.Time{"webhook": birth.Add(leafLife), "relay": birth.Add(leafLife), "authority": birth.Add(authorityLife)}
	if diff := cmp.Diff(want, s.Expiry()); diff != "" {
		t.Errorf("expiry (-want +got):\n%s", diff)
	}
	// A second replica changes nothing and serves the same.
	secrets, version := c.version, c.webhooks
	other := c.replica(nil)
	keep(t, other)
	if got, err := other.Certificate(nil); err != nil || !got.Leaf.Equal(served.Leaf) || c.version != secrets || c.webhooks != version {
		t.Errorf("the second replica wrote: %v", err)
	}
}

func TestSelfSays(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*cluster)
		err    error
		ready  bool
	}{
		"no configuration":   {func(c *cluster) { c.bundles = nil }, nil, false},
		"no Secret":          {func(c *cluster) { delete(c.secrets, "webhook") }, ErrNotFound, false},
		"no relay's Secret":  {func(c *cluster) { delete(c.secrets, "relay") }, ErrNotFound, true},
		"a bundle of others": {func(c *cluster) { c.bundles[1] = []byte("none") }, nil, true},
		"a relay's Secret of others": {func(c *cluster) {
			c.secrets["relay"] = Secret{Version: "7", Data: map[string][]byte{"tls.crt": []byte("x"), "tls.key": []byte("y")}}
		}, nil, true},
	} {
		c := newCluster()
		tt.change(c)
		s := c.replica(nil)
		if err := s.Sync(t.Context()); !errors.Is(err, tt.err) {
			t.Errorf("%s: got %v want %v", name, err, tt.err)
		}
		if err := s.Ready(); (err == nil) != tt.ready {
			t.Errorf("%s: got %v, want ready %t", name, err, tt.ready)
		}
	}
	c := newCluster()
	s := c.replica(nil)
	keep(t, s)
	c.now = c.now.Add(leafLife)
	if s.Ready() == nil {
		t.Error("it is ready with a certificate that ended")
	}
}

// What a person put into the Secret is not written over.
func TestASecretThatCannotBeRead(t *testing.T) {
	for _, key := range []string{keyCACert, keyLeafKey, keyOld, keySeen, keyPromoted} {
		c := newCluster()
		c.secrets["webhook"] = Secret{Version: "3", Data: map[string][]byte{key: []byte("nonsense")}}
		if err := c.replica(nil).Sync(t.Context()); err == nil || c.version != 0 {
			t.Errorf("%s: got %v, version %d", key, err, c.version)
		}
	}
}

func TestStateIsWhatWasWritten(t *testing.T) {
	c := newCluster()
	keep(t, c.replica(nil))
	s := c.secrets["webhook"]
	s.Rotate = "now"
	c.secrets["webhook"] = s
	for range 3 {
		keep(t, c.replica(nil)) // has an heir, and it was seen
	}
	first, err := Decode(c.secrets["webhook"].Data)
	if err != nil || first.Heir == nil || first.Seen.IsZero() || first.Forced != "now" {
		t.Fatalf("%+v: %v", first, err)
	}
	first.Old = []*x509.Certificate{first.CA.Cert}
	data, err := first.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again, cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) }),
		cmp.Comparer(func(a, b *Pair) bool { return a.Cert.Equal(b.Cert) && a.Key.Equal(b.Key) })); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
}

// A rotation ends: one authority is left, and it is the new one.
func TestRotationEnds(t *testing.T) {
	for name, begin := range map[string]func(*cluster){
		"asked for": func(c *cluster) {
			s := c.secrets["webhook"]
			s.Rotate = "2026-05"
			c.secrets["webhook"] = s
		},
		"due": func(c *cluster) { c.now = c.now.Add(authorityLife / 3 * 2) },
	} {
		c := newCluster()
		s := c.replica(nil)
		keep(t, s)
		first, err := Decode(c.secrets["webhook"].Data)
		if err != nil {
			t.Fatal(err)
		}
		begin(c)
		bundle, until := first.Bundle(), c.now.Add(grace)
		for end := c.now.Add(grace + leafLife + 3*after); c.now.Before(end); c.now = c.now.Add(4 * time.Hour) {
			keep(t, s)
			relay, err := ParseCerts(c.secrets["relay"].Data["tls.crt"])
			if err != nil {
				t.Fatal(err)
			}
			// A sidecar from before the rotation trusts what was published then.
			if err := verified(relay[0], bundle, "apss-relay.apss.svc", c.now); err != nil && c.now.Before(until) {
				t.Fatalf("%s, %s before the grace ends: %v", name, until.Sub(c.now), err)
			}
		}
		last, err := Decode(c.secrets["webhook"].Data)
		if err != nil {
			t.Fatal(err)
		}
		if last.CA.Cert.Equal(first.CA.Cert) || last.Heir != nil || last.Old != nil || !bytes.Equal(c.bundles[1], encodeCerts(last.CA.Cert)) {
			t.Errorf("%s: got %d old, heir %v, the same authority %t", name, len(last.Old), last.Heir, last.CA.Cert.Equal(first.CA.Cert))
		}
		if relay, err := parsePair(c.secrets["relay"].Data["tls.crt"], c.secrets["relay"].Data["tls.key"]); err != nil || !relay.by(last.CA) {
			t.Errorf("%s: the relay's certificate is not by the new authority: %v", name, err)
		}
	}
}

// The Secret goes while we run: what is served stays verified, and a new authority comes.
func TestTheSecretIsEmptied(t *testing.T) {
	c := newCluster()
	s := c.replica(nil)
	keep(t, s)
	c.now = c.now.Add(time.Hour)
	c.secrets["webhook"] = Secret{Version: "900"}
	before, _ := s.Certificate(nil)
	old := c.bundles[0]
	keep(t, s)
	if got, _ := s.Certificate(nil); !got.Leaf.Equal(before.Leaf) {
		t.Error("a certificate is served that API servers cannot know yet")
	}
	if !bytes.Contains(c.bundles[0], old) {
		t.Error("the authority of what is served is not published any more")
	}
	keep(t, s)
	if got, _ := s.Certificate(nil); got.Leaf.Equal(before.Leaf) {
		t.Error("the new certificate is not served")
	}
}
