package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// FilesConfig names the files. CA may be empty, and Changed and Now nil.
type FilesConfig struct {
	Cert, Key string // PEM
	CA        string // PEM of the relay's authorities
	// Changed is called, by one goroutine, with the content of CA when it is another.
	Changed func(bundle []byte)
	Log     *slog.Logger
	Now     func() time.Time
}

// Files serves a certificate that others keep. Its methods but Run may be called concurrently.
type Files struct {
	cfg FilesConfig

	mu            sync.Mutex
	cert, key, ca []byte
	served        *tls.Certificate
}

// NewFiles reads the files. The error says which of them is wrong.
func NewFiles(c FilesConfig) (*Files, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	f := &Files{cfg: c}
	return f, f.read()
}

// reread is how often the files are looked at: the kubelet takes a minute to bring a changed Secret, and reading three
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
			f.cfg.Log.WarnContext(ctx, "the certificate's files cannot be read; the last ones are used on", "error", err.Error())
		}
	}
}

func (f *Files) read() error {
	cert, err1 := os.ReadFile(f.cfg.Cert)
	key, err2 := os.ReadFile(f.cfg.Key)
	var ca []byte
	var err3 error
	if f.cfg.CA != "" {
		if ca, err3 = os.ReadFile(f.cfg.CA); err3 == nil {
			if _, err := ParseCerts(ca); err != nil {
				err3 = fmt.Errorf("%s: %w", f.cfg.CA, err)
			}
		}
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("reading certificates: %w", err)
	}
	f.mu.Lock()
	same, sameCA := bytes.Equal(cert, f.cert) && bytes.Equal(key, f.key), bytes.Equal(ca, f.ca)
	f.mu.Unlock()
	if !same {
		pair, err := tls.X509KeyPair(cert, key) // the two are replaced one after the other: half of a change fails here
		if err != nil {
			return fmt.Errorf("%s and %s: %w", f.cfg.Cert, f.cfg.Key, err)
		}
		f.mu.Lock()
		f.cert, f.key, f.served = cert, key, &pair
		f.mu.Unlock()
	}
	if !sameCA {
		f.mu.Lock()
		f.ca = ca
		f.mu.Unlock()
		if f.cfg.Changed != nil {
			f.cfg.Changed(ca)
		}
	}
	return nil
}

// Certificate returns what is served, for [tls.Config].
func (f *Files) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.served, nil
}

// Ready returns nil while the certificate is valid.
func (f *Files) Ready() error {
	end := f.Expiry()["webhook"]
	if !f.cfg.Now().Before(end) {
		return fmt.Errorf("the certificate in %s ended at %s", f.cfg.Cert, end.Format(time.RFC3339))
	}
	return nil
}

// Expiry says when the certificate ends, as [Self.Expiry] does.
func (f *Files) Expiry() map[string]time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return map[string]time.Time{"webhook": f.served.Leaf.NotAfter}
}
