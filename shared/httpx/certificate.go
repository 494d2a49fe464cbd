package httpx

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// lookEvery is how often the files of a certificate are looked at, when connections come: a Secret's files change about a
// minute after it (kubernetes.io/docs/concepts/configuration/secret/#using-secrets-as-files-from-a-pod).
const lookEvery = 10 * time.Second

// lookSoon is the same while there is none: who makes the first one may begin after us, in a Secret that is there before.
const lookSoon = time.Second

// Certificate is a server's, in a pair of files that others keep. Safe for concurrent use.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu        sync.Mutex
	looked    time.Time
	cert, key []byte // as read
	current   *tls.Certificate
}

// ReadCertificate reads a certificate with its chain and its key, both PEM. Files that are not there yet may come later:
// until then no connection is accepted.
func ReadCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log, looked: time.Now()}
	err := c.read()
	if errors.Is(err, fs.ErrNotExist) {
		log.Warn("there is no certificate yet; it is looked for", "error", err)
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Certificate) read() error {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return fmt.Errorf("reading the certificate's key: %w", err)
	}
	if c.current != nil && bytes.Equal(cert, c.cert) && bytes.Equal(key, c.key) {
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", c.certFile, c.keyFile, err)
	}
	c.cert, c.key, c.current = cert, key, &pair
	return nil
}

// Get returns the certificate for a connection. Files that do not go together (one of them may have been replaced a moment
// ago) leave the last good pair in place.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	every := lookEvery
	if c.current == nil {
		every = lookSoon
	}
	if now := time.Now(); now.Sub(c.looked) >= every {
		c.looked = now
		before := c.current
		if err := c.read(); before == nil && err != nil {
			return nil, err
		} else if err != nil {
			c.log.Error("the certificate's files cannot be used; the last good one stays", "error", err)
		} else if c.current != before {
			c.log.Info("a new certificate", "not_after", c.current.Leaf.NotAfter)
		}
	}
	if c.current == nil {
		return nil, fmt.Errorf("there is no certificate in %s yet", c.certFile)
	}
	return c.current, nil
}

// Check returns an error when there is no certificate, or it has expired.
func (c *Certificate) Check() error {
	cert, err := c.Get(nil)
	if err != nil {
		return err
	}
	if ends := cert.Leaf.NotAfter; time.Now().After(ends) {
		return fmt.Errorf("the certificate in %s expired at %s", c.certFile, ends.UTC().Format(time.RFC3339))
	}
	return nil
}

// Expires returns when the certificate ends; the zero time when there is none.
func (c *Certificate) Expires() time.Time {
	cert, err := c.Get(nil)
	if err != nil {
		return time.Time{}
	}
	return cert.Leaf.NotAfter
}

// TLS returns the configuration of a server: TLS 1.2 and later, HTTP/1.1.
func (c *Certificate) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.Get, NextProtos: []string{"http/1.1"}}
}
