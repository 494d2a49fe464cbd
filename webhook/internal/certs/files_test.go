package certs

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// issue writes a certificate with its key and authority into dir.
func issue(t *testing.T, dir string, now time.Time) *Pair {
	t.Helper()
	ca, err := authority(now)
	if err != nil {
		t.Fatal(err)
	}
	p, err := leaf(ca, names, now)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := p.encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": encodeCerts(ca.Cert), "paths": []byte(newPath() + "\n" + newPath())} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func filesConfig(dir string) FilesConfig {
	in := func(name string) string { return filepath.Join(dir, name) }
	return FilesConfig{Cert: in("tls.crt"), Key: in("tls.key"), CA: in("ca.crt"), Paths: in("paths"), Log: slog.New(slog.DiscardHandler)}
}

func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		first := issue(t, dir, time.Now())
		c := filesConfig(dir)
		var bundles []string
		c.Changed = func(b []byte) { bundles = append(bundles, string(b)) }
		f, err := NewFiles(c)
		if err != nil {
			t.Fatal(err)
		}
		serves := func(what string, want *Pair) {
			t.Helper()
			if got, err := f.Certificate(nil); err != nil || !got.Leaf.Equal(want.Cert) {
				t.Errorf("%s: it serves another certificate: %v", what, err)
			}
		}
		serves("at start", first)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { f.Run(ctx); close(ended) }()
		if err := os.WriteFile(c.Key, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(reread + time.Second)
		synctest.Wait()
		serves("half of a change", first)
		asked := func(what string, want bool, paths ...string) {
			t.Helper()
			for _, path := range paths {
				if f.Served(path) != want {
					t.Errorf("%s: %s is served: %t, want %t", what, path, !want, want)
				}
			}
		}
		read := func() []string {
			b, err := os.ReadFile(c.Paths)
			if err != nil {
				t.Fatal(err)
			}
			return strings.Fields(string(b))
		}
		old := read()
		asked("at start", true, old...)
		asked("at start", false, PlainPath, "", old[0]+"x", old[0][:len(old[0])-1])
		second := issue(t, dir, time.Now())
		time.Sleep(reread + time.Second)
		synctest.Wait()
		asked("after a change", true, read()...)
		asked("after a change", false, old...)
		serves("after a change", second)
		if len(bundles) != 2 || bundles[0] == bundles[1] {
			t.Errorf("got %d bundles, want 2", len(bundles))
		}
		if got, want := f.Expiry()["webhook"], second.Cert.NotAfter; !got.Equal(want) || f.Ready() != nil {
			t.Errorf("it ends at %s want %s; ready: %v", got, want, f.Ready())
		}
		stop()
		<-ended
		if err := errors.Join(os.Remove(c.Cert), os.Remove(c.Key)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(leafLife)
		if f.Ready() == nil {
			t.Error("it is ready with a certificate that ended")
		}
	})
}

func TestFilesThatAreWrong(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"no paths":      func(dir string) error { return os.Remove(filepath.Join(dir, "paths")) },
		"none in paths": func(dir string) error { return os.WriteFile(filepath.Join(dir, "paths"), []byte("\n"), 0o600) },
		"a path for all": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "paths"), []byte(newPath()+"\n"+PlainPath), 0o600)
		},
		"a short path": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "paths"), []byte(PlainPath+"/secret"), 0o600)
		},
		"no authorities":  func(dir string) error { return os.Remove(filepath.Join(dir, "ca.crt")) },
		"nonsense":        func(dir string) error { return os.WriteFile(filepath.Join(dir, "tls.crt"), []byte("x"), 0o600) },
		"nonsense for CA": func(dir string) error { return os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("x"), 0o600) },
	} {
		dir := t.TempDir()
		issue(t, dir, time.Now())
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := NewFiles(filesConfig(dir)); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// Without a file of paths everybody's is served, and that is said.
func TestFilesWithoutPaths(t *testing.T) {
	dir := t.TempDir()
	issue(t, dir, time.Now())
	var log bytes.Buffer
	c := filesConfig(dir)
	c.Paths, c.Log = "", slog.New(slog.NewTextHandler(&log, nil))
	f, err := NewFiles(c)
	if err != nil || !f.Served(PlainPath) || f.Served("/") || !strings.Contains(log.String(), "WEBHOOK_PATHS_FILE") {
		t.Errorf("got %v, %s", err, &log)
	}
}

func FuzzParseCerts(f *testing.F) {
	ca, err := authority(birth)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encodeCerts(ca.Cert, ca.Cert))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN X-----\nAA==\n-----END X-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := ParseCerts(b)
		if err != nil {
			return
		}
		again, err := ParseCerts(encodeCerts(all...))
		if err != nil || len(again) != len(all) {
			t.Errorf("%d certificates, written and read %d: %v", len(all), len(again), err)
		}
	})
}
