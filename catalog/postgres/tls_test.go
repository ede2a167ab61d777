package postgres_test

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testcert"
	"github.com/fencepost/fencepost/internal/testpg"
)

// rules let the tests' own connections in, and everybody else by TLS alone: user
// app with a password, user machine with a certificate in its name besides.
const rules = `local     all         all                    trust
hostnossl all         postgres  127.0.0.1/32 trust
hostssl   all         app       127.0.0.1/32 scram-sha-256
hostssl   all         careful   127.0.0.1/32 scram-sha-256 clientcert=verify-full
hostssl   all         machine   127.0.0.1/32 cert
`

// A secured server takes connections by TLS.
type secured struct {
	t         *testing.T
	server    *testpg.Server
	authority *testcert.Authority
	dir       string // the server's files
}

// secure starts a server whose certificate is changed so.
func secure(t *testing.T, changes ...testcert.Change) *secured {
	t.Helper()
	dir, err := os.MkdirTemp("", "testpg-tls-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	s := &secured{t: t, authority: testcert.NewAuthority(t), dir: dir}
	s.authority.Write(filepath.Join(dir, "ca.pem"))
	s.authority.Server(changes...).Write(dir, "server")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "hba.conf"), []byte(rules), 0o600))
	if os.Geteuid() == 0 { // the server runs as another user
		out, err := exec.CommandContext(t.Context(), "chown", "-R", "postgres", dir).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	file := func(setting, name string) testpg.Option {
		return testpg.Setting(setting + " = '" + filepath.Join(dir, name) + "'")
	}
	s.server = testpg.NewServer(t, testpg.Setting("ssl = on"), file("ssl_cert_file", "server.pem"),
		file("ssl_key_file", "server-key.pem"), file("ssl_ca_file", "ca.pem"), file("hba_file", "hba.conf"))
	testpg.Exec(t, s.server.URL, "create role app login password '"+secret+"'", "create role careful login password '"+secret+"'",
		"create role machine login", "grant create on database postgres to app, careful, machine")
	return s
}

// in returns the same server for a part of the test.
func (s *secured) in(t *testing.T) *secured {
	part := *s
	part.t = t
	return &part
}

// trusting returns the server's URL for a user, with a file of the authority.
func (s *secured) trusting(authority *testcert.Authority, user, password string) string {
	path := filepath.Join(s.t.TempDir(), "ca.pem")
	authority.Write(path)
	return testpg.With(s.t, s.server.URL, func(u *url.URL) {
		u.User = url.User(user)
		if password != "" {
			u.User = url.UserPassword(user, password)
		}
		u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {path}}.Encode()
	})
}

// as returns the server's URL for a user who shows a certificate.
func (s *secured) as(user, password string, shown testcert.Certificate) string {
	dir := s.t.TempDir()
	shown.Write(dir, "client")
	dsn := withParam(s.t, s.trusting(s.authority, user, password), "sslcert", filepath.Join(dir, "client.pem"))
	return withParam(s.t, dsn, "sslkey", filepath.Join(dir, "client-key.pem"))
}

// refuses requires that a DSN ends every way of asking with the code for
// configuration, named and without a secret.
func (s *secured) refuses(dsn string, says string) {
	s.t.Helper()
	store := open(s.t, dsn)
	for _, ask := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := store.Head(ctx); return err },
		func(ctx context.Context) error { _, err := store.Claim(ctx); return err },
		func(ctx context.Context) error { return store.Watch(ctx, func() {}) },
		func(ctx context.Context) error { _, err := catalog.Open(ctx, store, process(1)); return err },
	} {
		err := ask(within(s.t, soon))
		for range 50 { // the server's reason can be lost with the connection that it ends
			if exitcodes.Of(err) != exitcodes.Retry {
				break
			}
			err = ask(within(s.t, soon))
		}
		e := fails(s.t, err, exitcodes.Halt, driver.NotApplied)
		require.Equal(s.t, exitcodes.Config, exitcodes.CodeOf(err))
		require.NotEmpty(s.t, e.Remedy)
		require.ErrorContains(s.t, err, store.String())
		require.ErrorContains(s.t, err, says)
		require.NotContains(s.t, err.Error()+e.Remedy, secret)
	}
}

// works requires that a DSN leads to a catalog that is held, written, followed
// by LISTEN and fenced.
func (s *secured) works(dsn string) {
	s.t.Helper()
	first := open(s.t, dsn)
	config := process(1)
	config.PollInterval = 10 * soon // what is noticed, is by LISTEN
	held, err := catalog.Open(within(s.t, soon), first, config)
	require.NoError(s.t, err)
	require.NoError(s.t, put(s.t, held, "value"))
	require.NoError(s.t, held.Confirm(within(s.t, soon)))
	begun := make(chan struct{}, 10)
	watching := within(s.t, soon)
	done := make(chan error, 1)
	go func() { done <- first.Watch(watching, func() { begun <- struct{}{} }) }()
	<-begun
	var plain int
	require.NoError(s.t, testpg.Connect(s.t, s.server.URL).QueryRow(s.t.Context(), `select count(*) from pg_stat_ssl
		join pg_stat_activity using (pid) where application_name = 'fencepost' and not ssl`).Scan(&plain))
	require.Zero(s.t, plain, "connections without TLS")
	taker, err := catalog.Open(within(s.t, soon), open(s.t, dsn), process(2))
	require.NoError(s.t, err)
	require.NoError(s.t, taker.Close())
	select {
	case <-held.Done():
		require.ErrorIs(s.t, held.Err(), fence.ErrSuperseded)
	case <-watching.Done():
		s.t.Fatal("the fence was not noticed")
	}
	<-begun
	_ = held.Close()
	require.NoError(s.t, first.Close())
	fails(s.t, <-done, exitcodes.None, driver.NotApplied)
	testpg.Exec(s.t, s.server.URL, "drop schema fencepost cascade")
}

func TestTLSWithTheRightAuthorityWorksFromEndToEndAndEveryOtherHalts(t *testing.T) {
	t.Parallel()
	s := secure(t)
	other := testcert.NewAuthority(t)
	good := s.trusting(s.authority, "app", secret)
	t.Run("right", func(t *testing.T) { s.in(t).works(good) })
	t.Run("by the name that the certificate has besides", func(t *testing.T) {
		s.in(t).works(testpg.With(t, good, func(u *url.URL) { u.Host = "localhost:" + u.Port() }))
	})
	t.Run("another authority", func(t *testing.T) { s.in(t).refuses(s.trusting(other, "app", secret), "certificate") })
	t.Run("plain text", func(t *testing.T) {
		s.in(t).refuses(testpg.With(t, good, func(u *url.URL) { u.RawQuery = "sslmode=disable" }), "no encryption")
	})
	t.Run("wrong password", func(t *testing.T) { s.in(t).refuses(s.trusting(s.authority, "app", "wrong-"+secret), "app") })
	t.Run("no password", func(t *testing.T) { s.in(t).refuses(s.trusting(s.authority, "app", ""), "password") })
	t.Run("a user whom no rule lets in", func(t *testing.T) { s.in(t).refuses(s.trusting(s.authority, "stranger", secret), "stranger") })
}

func TestAServersCertificateThatIsNotItsOwnHalts(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]testcert.Change{
		"of another host": testcert.ForHost("db.example"),
		"expired":         testcert.Expired,
	} {
		t.Run(name, func(t *testing.T) {
			s := secure(t, change)
			s.refuses(s.trusting(s.authority, "app", secret), "certificate")
		})
	}
}

func TestAClientsCertificateIsShownAndAWrongOneHalts(t *testing.T) {
	t.Parallel()
	s := secure(t)
	other := testcert.NewAuthority(t)
	for user, password := range map[string]string{"machine": "", "careful": secret} {
		t.Run(user, func(t *testing.T) {
			s := s.in(t)
			s.works(s.as(user, password, s.authority.Client(user)))
			s.refuses(s.trusting(s.authority, user, password), "certificate")
			s.refuses(s.as(user, password, s.authority.Client("somebody")), user)
			s.refuses(s.as(user, password, other.Client(user)), "unknown certificate authority")
			s.refuses(s.as(user, password, s.authority.Client(user, testcert.Expired)), "expired certificate")
		})
	}
}
