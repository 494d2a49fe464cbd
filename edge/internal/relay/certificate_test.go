package relay_test

import (
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apss-sensor/apss/edge/internal/relay"
)

func TestACertificateIsReadAgain(t *testing.T) {
	f := newFiles(t)
	f.renew(t)
	synctest.Test(t, func(t *testing.T) {
		c, err := relay.ReadCertificate(f.cert, f.key, slog.New(slog.DiscardHandler))
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
		if err := c.Check(); err == nil || c.Expires() >= time.Now().Unix() {
			t.Error("an expired certificate: got no error")
		}
	})
	if _, err := relay.ReadCertificate(f.key, f.cert, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("files that are no pair: got no error")
	}
	if _, err := relay.ReadCertificate("none", f.key, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no file: got no error")
	}
}
