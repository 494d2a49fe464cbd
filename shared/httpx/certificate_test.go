package httpx_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/shared/httpx"
)

func TestACertificateIsReadAgain(t *testing.T) {
	f := newPair(t)
	f.renew(t)
	synctest.Test(t, func(t *testing.T) {
		c, err := httpx.ReadCertificate(f.cert, f.key, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		first, _ := c.Get(nil)
		f.renew(t)
		if now, _ := c.Get(nil); now != first {
			t.Error("the files are looked at for each connection")
		}
		time.Sleep(time.Minute)
		second, _ := c.Get(nil)
		if second == first {
			t.Error("the new certificate is not used")
		}
		if err := os.WriteFile(f.key, []byte("half of it"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if now, err := c.Get(nil); now != second || err != nil {
			t.Errorf("got %v, want the last good one to stay", err)
		}
		f.renew(t)
		time.Sleep(time.Minute)
		if now, _ := c.Get(nil); now == second {
			t.Error("the newest certificate is not used")
		}
		if err := c.Check(); err != nil {
			t.Errorf("a good certificate: %v", err)
		}
		time.Sleep(2 * time.Hour)
		if err := c.Check(); err == nil || c.Expires().After(time.Now()) {
			t.Error("an expired certificate: got no error")
		}
	})
	if _, err := httpx.ReadCertificate(f.key, f.cert, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("files that are no pair: got no error")
	}
}

// pair is a certificate's files.
type pair struct{ cert, key string }

func newPair(t *testing.T) pair {
	t.Helper()
	dir := t.TempDir()
	return pair{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
}

// renew writes a new certificate, which is good for an hour.
func (p pair) renew(t *testing.T) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{p.cert: {Type: "CERTIFICATE", Bytes: cert}, p.key: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheFirstCertificateMayComeLater: who makes it may begin after us, and a Secret's files take a minute to appear.
func TestTheFirstCertificateMayComeLater(t *testing.T) {
	f := newPair(t)
	f.renew(t)
	later := f.cert + ".later"
	synctest.Test(t, func(t *testing.T) {
		c, err := httpx.ReadCertificate(later, f.key, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(nil); err == nil || c.Check() == nil || !c.Expires().IsZero() {
			t.Errorf("got a certificate before there is one: %v", err)
		}
		if err := os.Rename(f.cert, later); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if _, err := c.Get(nil); err != nil || c.Check() != nil || c.Expires().IsZero() {
			t.Errorf("got %v when it is there", err)
		}
	})
}
