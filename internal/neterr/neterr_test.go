package neterr_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/neterr"
	"github.com/fencepost/fencepost/internal/testlists"
)

func table() driver.Table {
	r := neterr.Remedies{TLS: "tls", Name: "name", Address: "address", Start: "start"}
	return driver.Table{Store: "none", Families: []driver.Family{
		neterr.Certificates(r), neterr.Alerts(r), neterr.Context(), neterr.System(r), neterr.Network(r), neterr.Other(),
	}}
}

func TestEveryEntryHasItsReason(t *testing.T) { testlists.Check(t, table()) }

func TestTheTableHasEveryErrorOfGoThatAConnectionCanReturn(t *testing.T) {
	certificates := testlists.Source(t, "crypto/x509")
	var alerts []string
	for _, number := range testlists.Source(t, "crypto/tls").Numbers("alert", "alert") {
		alerts = append(alerts, fmt.Sprintf("alert %d", number))
	}
	require.GreaterOrEqual(t, len(alerts), 34)
	reasons := certificates.Iota("InvalidReason")
	require.GreaterOrEqual(t, len(reasons), 11)
	names := slices.Concat(
		alerts,
		testlists.Qualify("x509", reasons),
		testlists.Qualify("x509", testlists.Exported(certificates.Types())),
		testlists.Qualify("x509", certificates.Vars("Err")),
		[]string{"x509.IncorrectPasswordError", "context.Canceled", "context.DeadlineExceeded", "os.ErrDeadlineExceeded"},
		testlists.Qualify("tls", testlists.Exported(testlists.Source(t, "crypto/tls").Types())),
		testlists.Qualify("net", testlists.Exported(testlists.Source(t, "net").Types())),
		testlists.Qualify("net", testlists.Source(t, "net").Vars("Err")),
		testlists.Qualify("io", testlists.Exported(testlists.Source(t, "io").Vars("E"))),
	)
	names = slices.DeleteFunc(names, func(name string) bool { return name == "tls.AlertError" }) // by its number
	require.Empty(t, testlists.Missing(table(), names))
	for i, f := range table().Families {
		for j, e := range f.Entries {
			if !slices.Contains(names, e.Code) {
				continue
			}
			less := table()
			less.Families[i].Entries = slices.Delete(less.Families[i].Entries, j, j+1)
			require.Equal(t, []string{e.Code}, testlists.Missing(less, names))
		}
	}
}

func TestTheTableHasEveryErrorOfTheSystem(t *testing.T) {
	numbers := testlists.Source(t, "syscall").Numbers("E", "Errno")
	require.GreaterOrEqual(t, len(numbers), 100)
	for name, number := range numbers {
		m := table().Of(fmt.Errorf("wrapped: %w", syscall.Errno(number)))
		require.Equal(t, driver.Listed, m.Basis, name)
		require.Contains(t, append(m.Entry.Also, m.Entry.Code), name)
		require.Equal(t, unix.ErrnoName(syscall.Errno(number)), m.Code)
	}
	m := table().Of(syscall.Errno(4000))
	require.Equal(t, driver.Unlisted, m.Basis)
	require.Equal(t, exitcodes.Panic, m.Class(true).Disposition)
	require.Equal(t, driver.Unknown, m.Class(true).Outcome)
}

func TestAnAlertOfTheOtherSideIsKnownByItsNumber(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	form := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"db"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
	require.NoError(t, err)
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	trusted, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(trusted)
	for _, c := range []struct {
		server, client *tls.Config
		code           string
		disposition    exitcodes.Disposition
	}{
		{&tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert}, &tls.Config{RootCAs: pool, ServerName: "db"}, "alert 116", exitcodes.Halt},
		{&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}, &tls.Config{RootCAs: pool, ServerName: "db", MaxVersion: tls.VersionTLS12}, "alert 70", exitcodes.Halt},
		{&tls.Config{Certificates: []tls.Certificate{cert}}, &tls.Config{RootCAs: pool, ServerName: "other"}, "x509.HostnameError", exitcodes.Halt},
		{&tls.Config{Certificates: []tls.Certificate{cert}}, &tls.Config{ServerName: "db"}, "x509.UnknownAuthorityError", exitcodes.Halt},
	} {
		err := talk(c.server, c.client)
		require.Error(t, err)
		m := table().Of(err)
		require.Equal(t, c.code, m.Code, "%v", err)
		require.Equal(t, c.disposition, m.Class(false).Disposition)
		require.Equal(t, exitcodes.Config, m.Class(false).Code)
	}
}

func TestACertificateThatIsNotValidYetIsWaitedForAndAnExpiredOneIsNot(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	for _, c := range []struct {
		from, until time.Duration
		code        string
		disposition exitcodes.Disposition
	}{
		{time.Hour, 2 * time.Hour, "x509.Expired: not valid yet", exitcodes.Retry},
		{-2 * time.Hour, -time.Hour, "x509.Expired", exitcodes.Halt},
	} {
		form := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"db"}, NotBefore: time.Now().Add(c.from), NotAfter: time.Now().Add(c.until)}
		der, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
		require.NoError(t, err)
		trusted, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		pool := x509.NewCertPool()
		pool.AddCert(trusted)
		server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
		err = talk(server, &tls.Config{RootCAs: pool, ServerName: "db"})
		m := table().Of(err)
		require.Equal(t, c.code, m.Code, "%v", err)
		require.Equal(t, c.disposition, m.Class(false).Disposition)
	}
	m := table().Of(x509.CertificateInvalidError{Reason: x509.Expired})
	require.Equal(t, "x509.Expired", m.Code, "without a certificate nobody can tell")
}

func TestAConnectionThatThisHostForbidsForNowIsTriedAgain(t *testing.T) {
	require.Equal(t, exitcodes.Retry, table().Of(syscall.EPERM).Class(false).Disposition)
	require.Equal(t, exitcodes.Halt, table().Of(syscall.EACCES).Class(false).Disposition)
}

// talk returns what the client hears when the two shake hands and it reads.
func talk(server, client *tls.Config) error {
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn := tls.Server(far, server)
		_ = conn.Handshake()
		_, _ = io.Copy(io.Discard, conn)
		_ = far.Close()
	}()
	conn := tls.Client(near, client)
	err := conn.Handshake()
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	_ = near.Close()
	<-done
	return err
}

func TestAKindOfTimeoutNobodyKnowsIsOneNevertheless(t *testing.T) {
	m := table().Of(fmt.Errorf("wrapped: %w", late{}))
	require.Equal(t, "net.Error: timeout", m.Code)
	require.Equal(t, exitcodes.Retry, m.Class(false).Disposition)
	m = table().Of(&net.DNSError{IsNotFound: true})
	require.Equal(t, "net.DNSError: not found", m.Code)
	require.Equal(t, driver.Unlisted, table().Of(fmt.Errorf("news")).Basis)
	require.True(t, strings.Contains(table().Of(fmt.Errorf("news")).Class(true).Remedy, "report it"))
}

type late struct{}

func (late) Error() string   { return "late" }
func (late) Timeout() bool   { return true }
func (late) Temporary() bool { return true }
