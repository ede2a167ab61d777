// Package testcert makes certificates for tests of TLS: authorities, servers on
// the loopback address, clients, and such as have expired.
package testcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An Authority signs certificates.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	der  []byte
}

// NewAuthority returns an authority that only who is told of it trusts.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, key: newKey(t)}
	template := template("testcert authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	a.der = sign(t, template, template, a.key, a.key)
	var err error
	a.cert, err = x509.ParseCertificate(a.der)
	require.NoError(t, err)
	return a
}

// A Certificate is one that an authority signed, with its key.
type Certificate struct {
	t        testing.TB
	der, key []byte
}

// A Change makes a certificate differ from a good one.
type Change func(*x509.Certificate)

// Expired makes a certificate one of yesterday.
func Expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = c.NotBefore.AddDate(0, 0, -2), time.Now().AddDate(0, 0, -1)
}

// ForHost makes a server's certificate one for another host.
func ForHost(name string) Change {
	return func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{name}, nil }
}

// Server returns a certificate for a server at 127.0.0.1, also as localhost.
func (a *Authority) Server(changes ...Change) Certificate {
	return a.issue("127.0.0.1", x509.ExtKeyUsageServerAuth, changes)
}

// Client returns a certificate for a client by the name of a user.
func (a *Authority) Client(user string, changes ...Change) Certificate {
	return a.issue(user, x509.ExtKeyUsageClientAuth, changes)
}

func (a *Authority) issue(name string, usage x509.ExtKeyUsage, changes []Change) Certificate {
	a.t.Helper()
	c := template(name)
	c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{usage}
	if usage == x509.ExtKeyUsageServerAuth {
		c.DNSNames, c.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	for _, change := range changes {
		change(c)
	}
	key := newKey(a.t)
	bytes, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(a.t, err)
	return Certificate{t: a.t, der: sign(a.t, c, a.cert, key, a.key), key: bytes}
}

// Pool returns a pool with the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Write writes the authority to a file.
func (a *Authority) Write(path string) { write(a.t, path, "CERTIFICATE", a.der) }

// Write writes NAME.pem and NAME-key.pem to a folder.
func (c Certificate) Write(dir, name string) {
	write(c.t, filepath.Join(dir, name+".pem"), "CERTIFICATE", c.der)
	write(c.t, filepath.Join(dir, name+"-key.pem"), "PRIVATE KEY", c.key)
}

// TLS returns the certificate as package tls wants it.
func (c Certificate) TLS() tls.Certificate {
	key, err := x509.ParsePKCS8PrivateKey(c.key)
	require.NoError(c.t, err)
	return tls.Certificate{Certificate: [][]byte{c.der}, PrivateKey: key}
}

func template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		panic(err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func sign(t testing.TB, c, by *x509.Certificate, key, byKey *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
	require.NoError(t, err)
	return der
}

func write(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	require.NoError(t, os.WriteFile(path, text, 0o600))
}
