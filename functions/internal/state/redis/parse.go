package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Parse reads rediss://[user@]host[:port][/database][?ca=file], or redis:// for a connection in the clear. It reports all
// faults at once. The file holds the certificates that the server's is signed by, when the system does not know them. A
// password has no place here; an error does not quote one.
func Parse(u *url.URL) (Config, error) {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	c := Config{Network: "tcp", User: u.User.Username()}
	if _, has := u.User.Password(); has {
		fault("a password is written here")
	}
	host, port := u.Hostname(), u.Port()
	if host == "" {
		fault("there is no host")
	}
	if port == "" {
		port = "6379" // https://www.iana.org/assignments/uri-schemes/prov/redis
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		fault("port %q is no number from 1 to 65535", port)
	}
	c.Address = net.JoinHostPort(host, port)
	if db := strings.TrimPrefix(u.Path, "/"); db != "" {
		n, err := strconv.Atoi(db)
		if err != nil || n < 0 {
			fault("the database %q is no number", db)
		}
		c.DB = n
	}
	if u.Fragment != "" || u.Opaque != "" {
		fault("write it like rediss://host:6379/0")
	}
	var ca string
	for key, values := range u.Query() {
		if key != "ca" || len(values) != 1 {
			fault("there is no option %q; ca=<file> is the only one", key)
			continue
		}
		ca = values[0]
	}
	switch u.Scheme {
	case "rediss":
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
		if ca != "" {
			roots, err := readRoots(ca)
			if err != nil {
				errs = append(errs, err)
			}
			c.TLS.RootCAs = roots
		}
	case "redis":
		if ca != "" {
			fault("ca is for rediss://")
		}
	default:
		fault("the scheme is neither redis nor rediss")
	}
	return c, errors.Join(errs...)
}

func readRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the certificates: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("there is no certificate in %s", file)
	}
	return roots, nil
}
