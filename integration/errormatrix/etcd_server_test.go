package errormatrix

import (
	"bytes"
	"context"
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
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fencepost/fencepost/internal/teststop"
)

// etcdBinary is the server, which is built once for all tests.
var etcdBinary = sync.OnceValues(func() (string, error) {
	out, err := exec.Command(filepath.Join("..", "..", "scripts", "etcd.sh"), "build").Output()
	return strings.TrimSpace(string(out)), err
})

// A member is one server of a cluster.
type member struct {
	t            *testing.T
	name         string
	client, peer string // host and port
	flags        []string
	cmd          *exec.Cmd
}

// newMember reserves addresses for a member.
func newMember(t *testing.T, name string, flags ...string) *member {
	t.Helper()
	m := &member{t: t, name: name, flags: flags}
	for _, addr := range []*string{&m.client, &m.peer} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		*addr = l.Addr().String()
		require.NoError(t, l.Close())
	}
	return m
}

func (m *member) peerURL() string { return m.name + "=http://" + m.peer }

// start starts a member of a cluster, over TLS where its flags say so.
func (m *member) start(cluster []*member, more ...string) {
	m.t.Helper()
	binary, err := etcdBinary()
	require.NoError(m.t, err)
	var peers []string
	for _, other := range cluster {
		peers = append(peers, other.peerURL())
	}
	scheme := "http://"
	for _, flag := range m.flags {
		if strings.HasPrefix(flag, "--cert-file") {
			scheme = "https://"
		}
	}
	args := append([]string{
		"--name", m.name, "--data-dir", m.t.TempDir(), "--log-level", "panic",
		"--listen-client-urls", scheme + m.client, "--advertise-client-urls", scheme + m.client,
		"--listen-peer-urls", "http://" + m.peer, "--initial-advertise-peer-urls", "http://" + m.peer,
		"--initial-cluster", strings.Join(peers, ","), "--heartbeat-interval", "50", "--election-timeout", "500",
	}, append(m.flags, more...)...)
	m.cmd = exec.Command(binary, args...) //nolint:gosec // the server that this test is about
	require.NoError(m.t, m.cmd.Start())
	m.t.Cleanup(m.kill)
}

// kill ends the member as a crash does.
func (m *member) kill() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait() // its status is the signal's
	m.cmd = nil
}

func (m *member) signal(s syscall.Signal) {
	m.t.Helper()
	require.NoError(m.t, m.cmd.Process.Signal(s))
	if s == syscall.SIGSTOP {
		teststop.Await(m.t, m.cmd.Process.Pid)
	}
}

// alone starts a cluster of one.
func alone(t *testing.T, flags ...string) *member {
	t.Helper()
	m := newMember(t, "one", flags...)
	m.start([]*member{m})
	return m
}

// admin returns a client, once the member answers it.
func (m *member) admin(cfg clientv3.Config) *clientv3.Client {
	m.t.Helper()
	scheme := "http://"
	if cfg.TLS != nil {
		scheme = "https://"
	}
	cfg.Endpoints, cfg.Logger = []string{scheme + m.client}, zap.NewNop()
	c, err := clientv3.New(cfg)
	require.NoError(m.t, err)
	m.t.Cleanup(func() { _ = c.Close() })
	require.Eventually(m.t, func() bool {
		ctx, cancel := context.WithTimeout(m.t.Context(), time.Second)
		defer cancel()
		_, err := c.Get(ctx, "probe")
		return err == nil
	}, time.Minute, 20*time.Millisecond, "etcd does not answer")
	return c
}

// An authority signs certificates.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func template(name string, end time.Time) *x509.Certificate {
	n, _ := rand.Int(rand.Reader, big.NewInt(1<<62)) // never fails
	return &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: end,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := template("authority", time.Now().Add(time.Hour))
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{t: t, key: key, cert: cert, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// sign returns a certificate for 127.0.0.1 and etcd.test that is valid until end.
func (a *authority) sign(end time.Time) (cert, key []byte) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	tmpl := template("etcd", end)
	tmpl.IPAddresses, tmpl.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"etcd.test"}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &private.PublicKey, a.key)
	require.NoError(a.t, err)
	text, err := x509.MarshalECPrivateKey(private)
	require.NoError(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: text})
}

// pair returns a certificate for a client.
func (a *authority) pair(end time.Time) tls.Certificate {
	a.t.Helper()
	cert, key := a.sign(end)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(a.t, err)
	return pair
}

// flags returns what makes a server use a certificate that ends at end, and ask
// for those of clients.
func (a *authority) flags(end time.Time) []string {
	a.t.Helper()
	cert, key := a.sign(end)
	dir := a.t.TempDir()
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(a.t, os.WriteFile(path, b, 0o600))
		return path
	}
	return []string{
		"--cert-file=" + file("cert", bytes.Clone(cert)), "--key-file=" + file("key", key),
		"--trusted-ca-file=" + file("ca", a.pem), "--client-cert-auth=true",
	}
}

// roots returns what trusts a.
func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}
