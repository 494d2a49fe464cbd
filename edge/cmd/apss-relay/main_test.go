package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"k8s.io/client-go/rest"

	"github.com/apss-sensor/apss/edge/internal/publish"
	"github.com/apss-sensor/apss/edge/internal/publish/publishtest"
	"github.com/apss-sensor/apss/shared/outcome"
)

// TestMain is the relay itself when a benchmark runs it as a process of its own.
func TestMain(m *testing.M) {
	if api := os.Getenv("APSS_BENCH_API"); api != "" {
		os.Exit(measured(api, os.Getenv("APSS_BENCH_ADDRESS")))
	}
	os.Exit(m.Run())
}

func measured(api, address string) int {
	os.Unsetenv("APSS_BENCH_API") // they look like settings
	os.Unsetenv("APSS_BENCH_ADDRESS")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s, err := load(os.Environ())
	if err == nil {
		err = run(ctx, s, &rest.Config{Host: api}, os.Stderr, func(at net.Addr) {
			_ = os.WriteFile(address+".new", []byte(at.String()), 0o600)
			_ = os.Rename(address+".new", address)
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	return exitOK
}

// podToken is a pod's, as far as the relay can tell before it asks.
func podToken(name string) string {
	part := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"aud":["apss-relay"],"exp":%d,"kubernetes.io":{"pod":{"name":%q}}}`, time.Now().Add(time.Hour).Unix(), name)
	return part([]byte(`{}`)) + "." + part([]byte(claims)) + "." + name
}

// pair writes a certificate for the loopback, which is its own authority, and its key.
func pair(tb testing.TB) (cert, key, ca string) {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		tb.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	for path, content := range map[string]string{cert: ca, key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return cert, key, ca
}

// TestTheWholeRelay runs the program between a sidecar's publisher, an API server and Pub/Sub, and ends it.
func TestTheWholeRelay(t *testing.T) {
	pubsub := pstest.NewServer()
	t.Cleanup(func() { pubsub.Close() })
	for _, topic := range []string{"apss-events", "apss-alerts"} {
		if _, err := pubsub.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/" + topic}); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PUBSUB_EMULATOR_HOST", pubsub.Addr)
	api := httptest.NewServer(http.HandlerFunc(attest))
	t.Cleanup(api.Close)
	cert, key, ca := pair(t)
	s, err := load([]string{
		"TLS_CERT_FILE=" + cert, "TLS_KEY_FILE=" + key, "PUBSUB_PROJECT_ID=p", "RELAY_ADDR=127.0.0.1:0", "HTTP_ADDR=127.0.0.1:0", "SEAL_AFTER=10ms",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	listening, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		ended <- run(ctx, s, &rest.Config{Host: api.URL}, io.Discard, func(a net.Addr) { listening <- a })
	}()
	var at net.Addr
	select {
	case at = <-listening:
	case err := <-ended:
		t.Fatal(err)
	}
	p, err := publish.NewRelay(publish.RelayConfig{
		Endpoint: "https://" + at.String(), CA: ca, TokenFile: "token", ReadFile: func(string) ([]byte, error) { return []byte(podToken("shop_till")), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	message := publishtest.Envelope(publishtest.Event("x"))
	err = p.Publish(t.Context(), message)
	for deadline := time.Now().Add(30 * time.Second); err != nil && outcome.From(err).Class == outcome.Retry && time.Now().Before(deadline); {
		err = p.Publish(t.Context(), message) // on a machine that stalls the API server's answer may come too late
	}
	if err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ending: %v", err)
	}
	messages := pubsub.Messages()
	if len(messages) == 0 || messages[0].Attributes["namespace"] != "shop" {
		t.Errorf("got %d messages at Pub/Sub, want one of the namespace shop", len(messages))
	}
}

func TestSettings(t *testing.T) {
	good := []string{"TLS_CERT_FILE=/tls/tls.crt", "TLS_KEY_FILE=/tls/tls.key", "PUBSUB_PROJECT_ID=p"}
	for _, c := range []struct {
		name    string
		environ []string
		want    []string // keys in the error
	}{
		{"good", nil, nil},
		{"a service's links", []string{"APSS_RELAY_SERVICE_HOST=10.0.0.1", "APSS_RELAY_PORT=tcp://10.0.0.1:8444"}, nil},
		{"nothing", []string{"TLS_CERT_FILE=", "TLS_KEY_FILE=", "PUBSUB_PROJECT_ID="}, []string{"PUBSUB_PROJECT_ID", "TLS_CERT_FILE", "TLS_KEY_FILE"}},
		{"out of range", []string{
			"RELAY_ADDR=8444", "HTTP_ADDR=x", "TOKEN_FRESH=2h", "SEAL_COUNT=0", "SEAL_BYTES=1", "SEAL_AFTER=1m", "POD_REQUESTS=0", "POD_EVENTS_PER_SECOND=0",
			"POD_BYTES_PER_SECOND=0", "ROOM_BYTES=1", "MAX_BODY_BYTES=1", "DRAIN_TIMEOUT=1h", "EVENTS_TOPIC=a", "ALERTS_TOPIC=a", "TLS_CERT_FILE=tls.crt",
		}, []string{
			"RELAY_ADDR", "HTTP_ADDR", "TOKEN_FRESH", "SEAL_COUNT", "SEAL_BYTES", "SEAL_AFTER", "POD_REQUESTS", "POD_EVENTS_PER_SECOND",
			"POD_BYTES_PER_SECOND", "ROOM_BYTES", "MAX_BODY_BYTES", "DRAIN_TIMEOUT", "ALERTS_TOPIC", "TLS_CERT_FILE",
		}},
		{"unknown", []string{"SEAL_COUNTS=1"}, []string{"SEAL_COUNTS"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(append(good[:len(good):len(good)], c.environ...))
			if (err != nil) != (len(c.want) > 0) {
				t.Fatalf("got %v", err)
			}
			for _, key := range c.want {
				if !strings.Contains(err.Error(), key+":") {
					t.Errorf("got %v, want %s in it", err, key)
				}
			}
		})
	}
}

func TestApart(t *testing.T) {
	for _, c := range []struct {
		list []string
		want bool
	}{{[]string{"*"}, true}, {[]string{off}, false}, {[]string{"bank", "shop"}, true}, {[]string{"bank"}, false}} {
		if got := (&settings{Apart: c.list}).apart("shop"); got != c.want {
			t.Errorf("%v: got %v, want %v", c.list, got, c.want)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		args    []string
		environ []string
		code    int
		want    string
	}{
		{[]string{"-version"}, nil, exitOK, "dev"},
		{[]string{"-help"}, nil, exitOK, "SEAL_NAMESPACES"},
		{[]string{"nonsense"}, nil, exitUsage, "nonsense"},
		{nil, nil, exitUsage, "TLS_CERT_FILE"},
	} {
		var out bytes.Buffer
		if got := command(c.args, c.environ, &out, &out); got != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%q: got %d %s, want %d with %q", c.args, got, out.String(), c.code, c.want)
		}
	}
}
