package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// Pair is a certificate with its key.
type Pair struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// authority makes a certificate authority.
func authority(now time.Time) (*Pair, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	return sign(&x509.Certificate{
		SerialNumber: serial,
		// Two authorities of one name, and a verifier would have to try both keys: the serial tells them apart.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("apss-ca-%x", serial.Bytes()[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}, nil)
}

// leaf makes a server's certificate for names, which are of DNS or addresses.
func leaf(ca *Pair, names []string, now time.Time) (*Pair, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	end := now.Add(leafLife)
	if ca.Cert.NotAfter.Before(end) {
		end = ca.Cert.NotAfter
	}
	c := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: commonName(names)},
		NotBefore:    now.Add(-backdate),
		NotAfter:     end,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	c.DNSNames, c.IPAddresses = split(names)
	return sign(c, ca)
}

// commonName is for people; X.509 allows 64 characters (RFC 5280, upper bounds in appendix A.1), and Go looks at the others only.
func commonName(names []string) string {
	for _, n := range names {
		if len(n) <= 64 {
			return n
		}
	}
	return "apss"
}

func split(names []string) (dns []string, ips []net.IP) {
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			ips = append(ips, ip)
		} else {
			dns = append(dns, n)
		}
	}
	return dns, ips
}

// isFor reports whether c was made for just these names.
func isFor(c *x509.Certificate, names []string) bool {
	dns, ips := split(names)
	return slices.Equal(c.DNSNames, dns) && slices.EqualFunc(c.IPAddresses, ips, net.IP.Equal)
}

func serialNumber() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return serial.SetBit(serial, 126, 1), nil // positive, of 16 bytes
}

// sign makes a key and a certificate for it; by itself where ca is nil.
func sign(c *x509.Certificate, ca *Pair) (*Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	by := ca
	if by == nil {
		by = &Pair{c, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.Cert, &key.PublicKey, by.Key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate just made: %w", err)
	}
	return &Pair{cert, key}, nil
}

// TLS is the pair as a server takes it.
func (p *Pair) TLS() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{p.Cert.Raw}, PrivateKey: p.Key, Leaf: p.Cert}
}

// by reports whether ca made p.
func (p *Pair) by(ca *Pair) bool { return p.Cert.CheckSignatureFrom(ca.Cert) == nil }

const (
	pemCert = "CERTIFICATE"
	pemKey  = "PRIVATE KEY"
)

// encodeCerts writes certificates as PEM.
func encodeCerts(certs ...*x509.Certificate) []byte {
	var b []byte
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: c.Raw})...)
	}
	return b
}

// ParseCerts reads certificates in PEM; nothing is no error.
func ParseCerts(b []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for len(b) > 0 {
		block, rest := pem.Decode(b)
		if block == nil {
			if len(all) == 0 {
				return nil, errors.New("it holds no PEM")
			}
			break
		}
		if b = rest; block.Type != pemCert {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("reading a certificate: %w", err)
		}
		all = append(all, c)
	}
	return all, nil
}

// encode writes p as PEM.
func (p *Pair) encode() (cert, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("writing a key: %w", err)
	}
	return encodeCerts(p.Cert), pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// parsePair reads a certificate and its key; nil when there is neither.
func parsePair(cert, key []byte) (*Pair, error) {
	if len(cert) == 0 && len(key) == 0 {
		return nil, nil //nolint:nilnil // nothing is a value here
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	ours, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is a %T, want one of ECDSA", pair.PrivateKey)
	}
	return &Pair{pair.Leaf, ours}, nil
}
