package etcd_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/backoff"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testcert"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// secured starts a server that wants a certificate of its authority.
func secured(t *testing.T, changes ...testcert.Change) (*testetcd.Server, *testcert.Authority) {
	t.Helper()
	authority, dir := testcert.NewAuthority(t), t.TempDir()
	authority.Write(dir + "/ca.pem")
	authority.Server(changes...).Write(dir, "server")
	return testetcd.NewServer(t, testetcd.Options{TLS: dir}), authority
}

// showing returns a configuration that trusts an authority and shows
// certificates.
func showing(trusted *testcert.Authority, shown ...testcert.Certificate) etcd.Config {
	config := &tls.Config{RootCAs: trusted.Pool(), MinVersion: tls.VersionTLS12}
	for _, c := range shown {
		config.Certificates = append(config.Certificates, c.TLS())
	}
	return etcd.Config{TLS: config}
}

// worksFromEndToEnd requires that a catalog can be held, written, watched and
// fenced.
func worksFromEndToEnd(t *testing.T, at string, cfg etcd.Config) {
	t.Helper()
	config := process(1)
	config.PollInterval = 10 * time.Minute // what is noticed, is by a watch
	held, err := catalog.Open(within(t, time.Minute), open(t, at, cfg), config)
	require.NoError(t, err)
	require.NoError(t, put(t, held, "value"))
	require.NoError(t, held.Confirm(within(t, time.Minute)))
	taker, err := catalog.Open(within(t, time.Minute), open(t, at, cfg), process(2))
	require.NoError(t, err)
	require.NoError(t, taker.Close())
	select {
	case <-held.Done():
		require.ErrorIs(t, held.Err(), fence.ErrSuperseded)
	case <-within(t, time.Minute).Done():
		t.Fatal("the fence was not noticed")
	}
	_ = held.Close()
}

// refuses requires that every way of asking ends with the code for
// configuration, named and without a secret.
func refuses(t *testing.T, at string, cfg etcd.Config) {
	t.Helper()
	s := open(t, at, cfg)
	config := process(1)
	config.StoreTimeout, config.ClaimTimeout = time.Second, time.Second
	for _, ask := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := s.Head(ctx); return err },
		func(ctx context.Context) error { _, err := s.Claim(ctx); return err },
		func(ctx context.Context) error {
			_, err := s.Post(ctx, driver.Note{Key: "k", Value: []byte("v")})
			return err
		},
		func(ctx context.Context) error { _, err := catalog.Open(ctx, s, config); return err },
	} {
		err := ask(within(t, time.Second))
		for range 20 { // a busy machine is not done within a second
			if exitcodes.Of(err) != exitcodes.Retry {
				break
			}
			err = ask(within(t, time.Second))
		}
		e := classed(t, err)
		require.Equal(t, exitcodes.Halt, e.Disposition(), "%v", err)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
		require.NotEmpty(t, e.Remedy)
		require.ErrorContains(t, err, s.String())
		require.NotContains(t, err.Error()+e.Remedy, "secret")
	}
}

func TestTLSWithBothCertificatesWorksFromEndToEndAndEveryOtherHalts(t *testing.T) {
	t.Parallel()
	server, authority := secured(t)
	other := testcert.NewAuthority(t)
	require.True(t, strings.HasPrefix(server.URL(), "etcds://"))
	t.Run("right", func(t *testing.T) {
		worksFromEndToEnd(t, server.URL(), showing(authority, authority.Client("app")))
	})
	for name, config := range map[string]etcd.Config{
		"a server's certificate of another authority": showing(other, authority.Client("app")),
		"no client's certificate":                     showing(authority),
		"a client's certificate of another authority": showing(authority, other.Client("app")),
		"a client's certificate that has expired":     showing(authority, authority.Client("app", testcert.Expired)),
	} {
		t.Run(name, func(t *testing.T) { refuses(t, server.URL(), config) })
	}
}

// TestARefusalThatWasLostWithItsConnectionIsAskedForAgain has a server that ends
// a connection without a word, and refuses the certificate of who connects soon
// after: gRPC itself waits for longer.
func TestARefusalThatWasLostWithItsConnectionIsAskedForAgain(t *testing.T) {
	t.Parallel()
	authority := testcert.NewAuthority(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	own, served := []tls.Certificate{authority.Server().TLS()}, make(chan struct{})
	go func() {
		defer close(served)
		var silent time.Time
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			cfg := &tls.Config{Certificates: own, NextProtos: []string{"h2"}}
			if time.Since(silent) < backoff.DefaultConfig.BaseDelay/2 {
				cfg.ClientAuth = tls.RequireAnyClientCert
			}
			if tls.Server(conn, cfg).Handshake() == nil {
				silent = time.Now()
			}
			_ = conn.Close() // whatever became of it
		}
	}()
	defer func() { _ = ln.Close(); <-served }()
	refuses(t, "etcds://"+ln.Addr().String()+"/catalog", showing(authority))
}

func TestAServersCertificateThatIsNotItsOwnHalts(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]testcert.Change{
		"of another host": testcert.ForHost("etcd.example"),
		"expired":         testcert.Expired,
	} {
		t.Run(name, func(t *testing.T) {
			server, authority := secured(t, change)
			refuses(t, server.URL(), showing(authority, authority.Client("app")))
		})
	}
}

func TestPlainTextToAServerThatWantsTLSSaysWhatMayBeWrong(t *testing.T) {
	t.Parallel()
	server, _ := secured(t)
	s := open(t, strings.Replace(server.URL(), "etcds://", "etcd://", 1), etcd.Config{})
	err := longer(t, time.Second, func(ctx context.Context) error { _, err := s.Head(ctx); return err },
		func(err error) bool { return strings.Contains(err.Error(), "without a word") })
	e := classed(t, err)
	require.Equal(t, exitcodes.Retry, e.Disposition(), "a server that is about to end does the same: %v", err)
	require.ErrorContains(t, err, "without a word")
	require.Contains(t, e.Remedy, "etcds://")
}

// guarded starts a server with users: root, and app, whose role reaches what is
// beneath the prefixes.
func guarded(t *testing.T, prefixes ...string) (server *testetcd.Server, as func(user string) string, root *clientv3.Client) {
	t.Helper()
	server = testetcd.NewServer(t, testetcd.Options{})
	admin, ctx := testetcd.Client(t, server.URL()), within(t, time.Minute)
	for user, role := range map[string]string{"root": "root", "app": "catalog"} {
		_, err := admin.UserAdd(ctx, user, "secret-"+user)
		require.NoError(t, err)
		_, err = admin.RoleAdd(ctx, role)
		require.NoError(t, err)
		_, err = admin.UserGrantRole(ctx, user, role)
		require.NoError(t, err)
	}
	for _, prefix := range prefixes {
		grant(t, admin, prefix)
	}
	_, err := admin.AuthEnable(ctx)
	require.NoError(t, err)
	as = func(user string) string {
		return strings.Replace(server.URL(), "://", "://"+url.UserPassword(user, "secret-"+user).String()+"@", 1)
	}
	root, err = clientv3.New(clientv3.Config{Endpoints: admin.Endpoints(), Username: "root", Password: "secret-root"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	return server, as, root
}

func grant(t *testing.T, admin *clientv3.Client, prefix string) {
	t.Helper()
	const readWrite = 2
	_, err := admin.RoleGrantPermission(within(t, time.Minute), "catalog", prefix+"/", prefix+"0", readWrite)
	require.NoError(t, err)
}

// invalidate ends every token of user app, as any change of a password does.
func invalidate(t *testing.T, root *clientv3.Client) {
	t.Helper()
	_, err := root.UserChangePassword(within(t, time.Minute), "app", "secret-app")
	require.NoError(t, err)
}

func TestLeadershipSurvivesAUsersTokenThatIsInvalidated(t *testing.T) {
	t.Parallel()
	_, as, root := guarded(t, "catalog")
	held, err := catalog.Open(within(t, time.Minute), open(t, as("app"), etcd.Config{}), process(1))
	require.NoError(t, err)
	for range 3 {
		invalidate(t, root)
		require.NoError(t, put(t, held, "value"))
		invalidate(t, root)
		require.NoError(t, held.Confirm(within(t, time.Minute)))
	}
	require.NoError(t, held.Err())
	require.NoError(t, held.Close())
}

// A server forgets the tokens that it gave when it ends, as it does when they
// expire.
func TestLeadershipSurvivesAUsersTokenThatTheServerForgets(t *testing.T) {
	t.Parallel()
	server, as, _ := guarded(t, "catalog")
	held, err := catalog.Open(within(t, time.Minute), open(t, as("app"), etcd.Config{}), process(1))
	require.NoError(t, err)
	server.Stop()
	server.Start()
	require.NoError(t, put(t, held, "value"))
	require.NoError(t, held.Confirm(within(t, time.Minute)))
	require.NoError(t, held.Err())
	require.NoError(t, held.Close())
}

// All catalogs of a client share a stream of watches, which keeps the token that
// it began with. One that comes later must be woken all the same.
func TestAWatchBeginsAlsoWhereTheTokenOfTheSharedStreamIsInvalid(t *testing.T) {
	t.Parallel()
	_, as, root := guarded(t, "catalog")
	server, err := etcd.Connect(t.Context(), as("app"), etcd.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	config := process(1)
	config.PollInterval = 10 * time.Minute // what is noticed, is by a watch
	var held []*catalog.Catalog
	for i := range 3 {
		s, err := server.Open(t.Context(), tenant(i))
		require.NoError(t, err)
		c, err := catalog.Open(within(t, time.Minute), s, config)
		require.NoError(t, err)
		defer func() { _ = c.Close() }()
		held = append(held, c)
		invalidate(t, root)
		require.NoError(t, c.Confirm(within(t, time.Minute)), "with a new token")
	}
	begun := make(chan struct{}, 10)
	late, err := server.Open(t.Context(), "late")
	require.NoError(t, err)
	watching, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for watching.Err() == nil {
			done <- late.Watch(watching, func() { begun <- struct{}{} })
		}
	}()
	select {
	case <-begun:
	case err := <-done:
		require.NoError(t, err, "the first watch with an old token")
	}
	for i, c := range held {
		taker, err := catalog.Open(within(t, time.Minute), open(t, as("app")+"/"+tenant(i), etcd.Config{}), process(2))
		require.NoError(t, err)
		require.NoError(t, taker.Close())
		select {
		case <-c.Done():
		case <-within(t, time.Minute).Done():
			t.Fatalf("catalog %d was not woken", i)
		}
	}
	stop()
	<-done
}

// A catalog whose user lacks rights does not spoil the heads of the others.
func TestACatalogWithoutRightsHaltsAloneOnASharedClient(t *testing.T) {
	t.Parallel()
	_, as, _ := guarded(t, "catalog/mine")
	server, err := etcd.Connect(t.Context(), as("app"), etcd.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	mine, err := server.Open(t.Context(), "mine")
	require.NoError(t, err)
	head := claim(t, mine)
	foreign, err := server.Open(t.Context(), "foreign")
	require.NoError(t, err)
	e := classed(t, foreign.Watch(within(t, time.Minute), func() {}))
	require.Equal(t, exitcodes.Halt, e.Disposition(), "%v", e)
	require.Equal(t, exitcodes.Config, e.ExitCode())
	asked := make(chan error, 200)
	for range 100 {
		go func() {
			got, err := mine.Head(within(t, time.Minute))
			if err == nil && got.Commit != head.Commit {
				err = driver.ErrCorrupt
			}
			asked <- err
		}()
		go func() {
			_, err := foreign.Head(within(t, time.Minute))
			if exitcodes.Of(err) == exitcodes.Halt && exitcodes.CodeOf(err) == exitcodes.Config {
				err = nil
			}
			asked <- err
		}()
	}
	for range 200 {
		require.NoError(t, <-asked)
	}
}
