package redis_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/redis"
	"github.com/apss-sensor/apss/functions/internal/state/redis/redistest"
	"github.com/apss-sensor/apss/functions/internal/state/statetest"
)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue writes a certificate of form, signed by signer or by itself, and its key to name.crt and name.key of dir.
func issue(t *testing.T, dir, name string, form *x509.Certificate, signer *pair) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form.SerialNumber, form.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-2*time.Hour)
	if form.NotAfter.IsZero() {
		form.NotAfter = time.Now().Add(time.Hour)
	}
	if signer == nil {
		signer = &pair{form, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, form, signer.cert, &key.PublicKey, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err1 := x509.ParseCertificate(der)
	raw, err2 := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &pair{cert, key}
}

// address is one that nobody else uses: Redis takes no port of the kernel's choice.
func address(t *testing.T) net.IP {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED: the server listens on an address of 127.0.0.0/8 of its own, all of which only Linux has on its loopback")
	}
	return net.IPv4(127, byte(1+mathrand.N(250)), byte(mathrand.N(250)), byte(1+mathrand.N(250)))
}

// TestTLS: rediss:// is the store as it is without TLS, and a server that cannot prove who it is gets nothing.
func TestTLS(t *testing.T) {
	ip := address(t)
	dir := t.TempDir()
	ca := issue(t, dir, "ca", &x509.Certificate{
		Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	issue(t, dir, "stranger", &x509.Certificate{
		Subject: pkix.Name{CommonName: "stranger"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	issue(t, dir, "server", &x509.Certificate{IPAddresses: []net.IP{ip}}, ca)
	issue(t, dir, "expired", &x509.Certificate{IPAddresses: []net.IP{ip}, NotAfter: time.Now().Add(-time.Hour)}, ca)
	issue(t, dir, "other", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, ca)
	file := func(name string) string { return filepath.Join(dir, name) }
	server := redistest.Start(t, "--bind", ip.String(), "--tls-port", "6379", "--tls-auth-clients", "no",
		"--tls-ca-cert-file", file("ca.crt"), "--tls-cert-file", file("server.crt"), "--tls-key-file", file("server.key"))
	operator := admin(t, server)
	open := func(t *testing.T, query string) state.Store {
		t.Helper()
		u, err := url.Parse("rediss://" + ip.String() + "/0" + query)
		if err != nil {
			t.Fatal(err)
		}
		c, err := redis.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		c.Timeout = patience
		return redis.New(c)
	}
	known := "?ca=" + url.QueryEscape(file("ca.crt"))
	t.Run("suite", func(t *testing.T) {
		statetest.Run(t, func(t *testing.T) state.Store {
			t.Helper()
			empty(t, operator)
			return open(t, known)
		})
	})
	for _, tt := range []struct{ name, query, cert string }{
		{"an authority that the system does not know", "", "server"},
		{"another authority", "?ca=" + url.QueryEscape(file("stranger.crt")), "server"},
		{"an expired certificate", known, "expired"},
		{"another's certificate", known, "other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := operator.Do(t.Context(), "CONFIG", "SET", "tls-cert-file", file(tt.cert+".crt"), "tls-key-file", file(tt.cert+".key")).Err()
			if err != nil {
				t.Fatal(err)
			}
			s := open(t, tt.query)
			defer s.Close()
			if err := set(t.Context(), s, "k", "v"); !errors.Is(err, state.ErrDown) {
				t.Errorf("got %v, want ErrDown", err)
			}
		})
	}
}
