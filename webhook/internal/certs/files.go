package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/apss-sensor/apss/shared/httpx"
)

// FilesConfig names the files. CA and Paths may be empty, and Changed nil.
type FilesConfig struct {
	Cert, Key string // PEM
	CA        string // PEM of the relay's authorities
	Paths     string // of the reviews, one each line; empty: [PlainPath]
	// Changed is called, by one goroutine, with the content of CA when it is another.
	Changed func(bundle []byte)
	Log     *slog.Logger
}

// Files serves what others keep. Its methods but Run may be called concurrently.
type Files struct {
	cfg  FilesConfig
	cert *httpx.Certificate

	mu    sync.Mutex
	ca    []byte
	paths []string
}

// NewFiles reads the files. The error says which of them is wrong.
func NewFiles(c FilesConfig) (*Files, error) {
	f := &Files{cfg: c, paths: []string{PlainPath}}
	if c.Paths == "" {
		c.Log.Warn("whoever reaches this port may send reviews: give WEBHOOK_PATHS_FILE, and one of its paths to the webhook configuration")
	}
	var err error
	f.cert, err = httpx.ReadCertificate(c.Cert, c.Key, c.Log)
	return f, errors.Join(err, f.read())
}

// reread is how often the files are looked at: the kubelet takes a minute to bring a changed Secret, and reading some
// small files costs less than being told of changes through its symbolic links.
const reread = 10 * time.Second

// Run reads the files again when they change, until ctx ends. While they are wrong, what was read is served on.
func (f *Files) Run(ctx context.Context) {
	tick := time.NewTicker(reread)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := f.read(); err != nil {
			f.cfg.Log.WarnContext(ctx, "the files beside the certificate cannot be read; what they said holds on", "error", err.Error())
		}
	}
}

func (f *Files) read() error {
	var ca []byte
	paths := []string{PlainPath}
	var errs []error
	if f.cfg.CA != "" {
		var err error
		if ca, err = os.ReadFile(f.cfg.CA); err == nil {
			_, err = ParseCerts(ca)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reading the relay's authorities in %s: %w", f.cfg.CA, err))
		}
	}
	if f.cfg.Paths != "" {
		b, err := os.ReadFile(f.cfg.Paths)
		if paths = strings.Fields(string(b)); err == nil && len(paths) == 0 {
			err = errors.New("it holds none")
		}
		for _, path := range paths {
			if !strings.HasPrefix(path, PlainPath+"/") || len(path) < len(PlainPath)+17 { // it is not told: it may be a slip in a secret
				err = fmt.Errorf("a line is not %s/ and 16 characters or more", PlainPath)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reading the paths of reviews in %s: %w", f.cfg.Paths, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	f.mu.Lock()
	changed := !bytes.Equal(ca, f.ca)
	f.ca, f.paths = ca, paths
	f.mu.Unlock()
	if changed && f.cfg.Changed != nil {
		f.cfg.Changed(ca)
	}
	return nil
}

// Certificate returns what is served, for [tls.Config].
func (f *Files) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.cert.Get(hello)
}

// Served reports whether reviews at path are API servers'.
func (f *Files) Served(path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return served(f.paths, path)
}

// Ready returns nil while there is a certificate that is valid.
func (f *Files) Ready() error { return f.cert.Check() }

// Expiry says when the certificate ends, as [Self.Expiry] does.
func (f *Files) Expiry() map[string]time.Time {
	return map[string]time.Time{"webhook": f.cert.Expires()}
}
