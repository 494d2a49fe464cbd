package relay_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/apss-sensor/apss/edge/internal/publish"
	"github.com/apss-sensor/apss/edge/internal/relay"
	"github.com/apss-sensor/apss/edge/internal/relay/token"
	"github.com/apss-sensor/apss/shared/envelope"
	"github.com/apss-sensor/apss/shared/event"
	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/telemetry"
)

// within is how long a test waits for what must come.
const within = 30 * time.Second

// tokens knows pods by token; what package token itself does is tested there.
type tokens map[string]*token.Identity

func (k tokens) Authenticate(_ context.Context, _, text string) (*token.Identity, error) {
	switch who := k[text]; {
	case who != nil:
		return who, nil
	case text == "later":
		return nil, token.ErrUnavailable
	}
	return nil, &token.Refused{Reason: "nobody knows it"}
}

func pod(namespace, name string) *token.Identity {
	return &token.Identity{Namespace: namespace, Pod: name, UID: namespace + "-" + name, Node: "n1", ServiceAccount: "sa"}
}

// topic is Pub/Sub.
type topic struct {
	mu       sync.Mutex
	messages []envelope.Message
	publish  func(ctx context.Context, m envelope.Message) error // nil accepts
}

func (p *topic) Publish(ctx context.Context, m envelope.Message) error {
	p.mu.Lock()
	publish := p.publish
	p.mu.Unlock()
	if publish != nil {
		if err := publish(ctx, m); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages = append(p.messages, m)
	return nil
}

func (p *topic) all() []envelope.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.messages
}

func (p *topic) events(t *testing.T) (all []*event.Event) {
	t.Helper()
	for _, m := range p.all() {
		if m.Attributes["ce-type"] != envelope.TypeEvents {
			continue
		}
		raws, err := m.Events(nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := strconv.Itoa(len(raws)); m.Attributes["count"] != want {
			t.Errorf("got the count %s on a message of %s", m.Attributes["count"], want)
		}
		for _, raw := range raws {
			e, err := event.Decode(raw)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
	}
	return all
}

// house is a relay behind real TLS.
type house struct {
	t           *testing.T
	url, ca     string
	certificate files
	topic       *topic
	stop        context.CancelFunc
	served      chan error
}

func open(t *testing.T, known tokens, change func(*relay.Config)) *house {
	t.Helper()
	tel, err := telemetry.Start(t.Context(), telemetry.Config{Service: "test", Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, topic: new(topic), served: make(chan error, 1)}
	c := relay.Config{
		Cluster: "prod", AgentID: "prod/relay", Tokens: known, Publisher: h.topic, Telemetry: tel,
		Seal:  relay.Seal{Count: 1000, Bytes: 1 << 20, After: 20 * time.Millisecond},
		Apart: func(string) bool { return true }, Room: 16 << 20, MaxBody: 1 << 20,
		Pod: relay.PodLimits{Requests: 32, Events: 1e6, Bytes: 1e9},
	}
	if change != nil {
		change(&c)
	}
	r, err := relay.New(c)
	if err != nil {
		t.Fatal(err)
	}
	h.certificate = newFiles(t)
	h.ca = h.certificate.renew(t)
	certificate, err := httpx.ReadCertificate(h.certificate.cert, h.certificate.key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.url = "https://" + l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	go func() {
		h.served <- httpx.Server{Handler: r.Handler(), Grace: within}.Serve(ctx, tls.NewListener(l, certificate.TLS()))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-h.served; err != nil {
			t.Errorf("draining: %v", err)
		}
	})
	return h
}

// sidecar returns the publisher of a pod's agent.
func (h *house) sidecar(text string) *publish.Relay {
	h.t.Helper()
	p, err := publish.NewRelay(publish.RelayConfig{
		Endpoint: h.url, CA: h.ca, TokenFile: "token", ReadFile: func(string) ([]byte, error) { return []byte(text), nil },
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = p.Close() })
	return p
}

// files are a certificate's.
type files struct{ dir, cert, key string }

func newFiles(t *testing.T) files {
	t.Helper()
	dir := t.TempDir()
	return files{dir, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
}

// renew writes a new pair of its own authority, which it returns.
func (f files) renew(t *testing.T) (ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "relay"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	for path, content := range map[string]string{f.cert: ca, f.key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ca
}
