package relay

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// lookEvery is how often the files of a certificate are looked at, when connections come: a Secret's files change about a
// minute after it (kubernetes.io/docs/concepts/configuration/secret/#using-secrets-as-files-from-a-pod).
const lookEvery = 10 * time.Second

// Certificate is a pair of files that may change. Safe for concurrent use.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu        sync.Mutex
	looked    time.Time
	cert, key []byte // as read
	current   *tls.Certificate
}

// ReadCertificate reads a certificate with its chain and its key, both PEM.
func ReadCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.read(); err != nil {
		return nil, err
	}
	c.looked = time.Now()
	return c, nil
}

func (c *Certificate) read() error {
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return fmt.Errorf("reading TLS_CERT_FILE: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return fmt.Errorf("reading TLS_KEY_FILE: %w", err)
	}
	if c.current != nil && bytes.Equal(cert, c.cert) && bytes.Equal(key, c.key) {
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("TLS_CERT_FILE and TLS_KEY_FILE: %w", err)
	}
	c.cert, c.key, c.current = cert, key, &pair
	return nil
}

// Get returns the certificate for a connection. Files that do not go together (one of them may have been replaced a moment
// ago) leave the last good pair in place.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		before := c.current
		if err := c.read(); err != nil {
			c.log.Error("the certificate's files cannot be used; the last good one stays", "error", err)
		} else if c.current != before {
			c.log.Info("a new certificate", "not_after", c.current.Leaf.NotAfter)
		}
	}
	return c.current, nil
}

// Check returns an error when the certificate has expired: no sidecar accepts it then.
func (c *Certificate) Check() error {
	cert, _ := c.Get(nil)
	if ends := cert.Leaf.NotAfter; time.Now().After(ends) {
		return fmt.Errorf("the certificate in %s expired at %s", c.certFile, ends.UTC().Format(time.RFC3339))
	}
	return nil
}

// Expires returns when the certificate ends, in seconds since 1970.
func (c *Certificate) Expires() int64 {
	cert, _ := c.Get(nil)
	return cert.Leaf.NotAfter.Unix()
}

// TLS returns the configuration of a server: TLS 1.2 and later, HTTP/1.1, as the agents speak it.
func (c *Certificate) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.Get, NextProtos: []string{"http/1.1"}}
}
