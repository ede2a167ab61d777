package errormatrix

import (
	"context"
	"crypto/tls"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/etcd"
)

// A kv is one catalog in etcd, with a store that nothing is done to.
type kv struct {
	*ledger
	t    *testing.T
	x    *matrix
	url  string
	well *etcd.Store
}

func openEtcd(t *testing.T, url string, cfg etcd.Config) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), url, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// in runs a case in a catalog of its own. Afterwards nothing is lost.
func (x *matrix) in(t *testing.T, title string, m *member, fn func(k *kv)) {
	t.Helper()
	t.Run(title, func(t *testing.T) {
		k := &kv{ledger: new(ledger), t: t, x: x, url: "etcd://" + m.client + "/" + driver.NewID().String()}
		k.well = openEtcd(t, k.url, etcd.Config{})
		k.claim(t, k.well)
		require.NoError(t, k.commit(10))
		fn(k)
		k.check(t, openEtcd(t, k.url, etcd.Config{}))
	})
}

func (k *kv) commit(size int) error {
	k.t.Helper()
	return k.after(drivertest.Context(k.t), k.well, drivertest.ReadHead(k.t, k.well), size)
}

func (k *kv) after(ctx context.Context, s driver.Store, head driver.Head, size int) error {
	rec := drivertest.NextRecord(head, random(size))
	return k.note(rec, s.Append(ctx, head, rec))
}

// briefly returns a context that soon ends.
func briefly(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func provokeEtcd(t *testing.T) *matrix {
	x := newMatrix(etcd.Errors())
	one := alone(t, "--quota-backend-bytes=8388608", "--max-request-bytes=700000", "--max-txn-ops=6")
	admin := one.admin(clientv3.Config{})
	x.provokeSizes(t, one, admin)
	x.provokeTLS(t)
	x.provokeUsers(t)
	x.provokeAnswers(t)
	x.provokeCluster(t)
	return x
}

func (x *matrix) provokeSizes(t *testing.T, one *member, admin *clientv3.Client) {
	x.in(t, "limits of the server", one, func(k *kv) {
		x.expect(k.t, met, "ErrRequestTooLarge", true, k.commit(800_000))
		claiming, err := k.well.Claim(drivertest.Context(k.t))
		require.NoError(k.t, err)
		next := drivertest.NextClaim(k.t, claiming.Head(), 2)
		when := make([]driver.Note, 10)
		for i := range when {
			when[i].Key = string(rune('a' + i))
		}
		err = k.note(drivertest.ClaimRecord(next), claiming.Install(drivertest.Context(k.t), next, drivertest.ClaimRecord(next), when...))
		x.expect(k.t, met, "ErrTooManyOps", true, err)
		_, err = openEtcd(k.t, k.url, etcd.Config{ClaimTTL: 9_100_000_000 * time.Second}).Claim(drivertest.Context(k.t))
		x.expect(k.t, met, "ErrLeaseTTLTooLarge", false, err)
	})
	x.in(t, "alarms", one, func(k *kv) {
		alarm := func(do pb.AlarmRequest_AlarmAction, what pb.AlarmType) {
			status, err := admin.Status(k.t.Context(), admin.Endpoints()[0])
			require.NoError(k.t, err)
			_, err = pb.NewMaintenanceClient(admin.ActiveConnection()).Alarm(k.t.Context(),
				&pb.AlarmRequest{Action: do, Alarm: what, MemberID: status.Header.MemberId})
			require.NoError(k.t, err)
		}
		head := drivertest.ReadHead(k.t, k.well)
		alarm(pb.AlarmRequest_ACTIVATE, pb.AlarmType_CORRUPT)
		err := k.after(drivertest.Context(k.t), k.well, head, 1)
		alarm(pb.AlarmRequest_DEACTIVATE, pb.AlarmType_CORRUPT)
		x.expect(k.t, met, "ErrCorrupt", true, err)

		for err = nil; err == nil; {
			err = k.commit(600_000)
		}
		x.expect(k.t, met, "ErrNoSpace", true, err)
		require.ErrorIs(k.t, err, driver.ErrFull)
	})
	x.onItsOwn(t, "a server that stands still, and is killed", func(k *kv, m *member) {
		head := drivertest.ReadHead(k.t, k.well)
		m.signal(syscall.SIGSTOP)
		err := k.after(briefly(k.t, 2*time.Second), k.well, head, 1)
		m.signal(syscall.SIGCONT)
		x.expect(k.t, met, "context.DeadlineExceeded", true, err)
		k.check(k.t, k.well)

		gone, cancel := context.WithCancel(k.t.Context())
		m.signal(syscall.SIGSTOP)
		failed := make(chan error, 1)
		go func() { failed <- k.after(gone, k.well, head, 1) }()
		cancel()
		x.expect(k.t, met, "context.Canceled", driver.OutcomeOf(errOf(failed, &err)) == driver.Unknown, err)
		m.signal(syscall.SIGCONT)

		head = drivertest.ReadHead(k.t, k.well)
		m.signal(syscall.SIGSTOP)
		go func() { failed <- k.after(drivertest.Context(k.t), k.well, head, 1) }()
		m.signal(syscall.SIGKILL)
		err = <-failed
		x.saw(x.judged(k.t, driver.OutcomeOf(err) == driver.Unknown, err), met)
		_, err = openEtcd(k.t, k.url, etcd.Config{}).Head(briefly(k.t, 500*time.Millisecond))
		x.saw(x.judged(k.t, false, err), met)
	})
}

func errOf(c chan error, err *error) error {
	*err = <-c
	return *err
}

// onItsOwn runs a case on a server that does not survive it.
func (x *matrix) onItsOwn(t *testing.T, title string, fn func(k *kv, m *member)) {
	t.Helper()
	t.Run(title, func(t *testing.T) {
		m := alone(t)
		m.admin(clientv3.Config{})
		k := &kv{ledger: new(ledger), t: t, x: x, url: "etcd://" + m.client + "/catalog"}
		k.well = openEtcd(t, k.url, etcd.Config{})
		k.claim(t, k.well)
		fn(k, m)
	})
}

// until asks again while an answer does not come in time.
func until(t *testing.T, s *etcd.Store) error {
	t.Helper()
	for ctx := drivertest.Context(t); ; {
		_, err := s.Head(briefly(t, time.Second))
		if err == nil || etcd.Errors().Of(cause(err)).Code != "context.DeadlineExceeded" || ctx.Err() != nil {
			return err
		}
	}
}

func (x *matrix) provokeTLS(t *testing.T) {
	t.Run("certificates", func(t *testing.T) {
		ours, theirs := newAuthority(t), newAuthority(t)
		soon, past := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
		sound, expired := alone(t, ours.flags(soon)...), alone(t, ours.flags(past)...)
		good := &tls.Config{RootCAs: ours.roots(), Certificates: []tls.Certificate{ours.pair(soon)}, MinVersion: tls.VersionTLS12}
		sound.admin(clientv3.Config{TLS: good})
		refused := func(code, host string, change func(c *tls.Config)) {
			t.Helper()
			cfg := good.Clone()
			change(cfg)
			err := until(t, openEtcd(t, "etcds://"+host+"/catalog", etcd.Config{TLS: cfg}))
			x.expect(t, met, code, false, err)
		}
		as := func(certs ...tls.Certificate) func(*tls.Config) {
			return func(c *tls.Config) { c.Certificates = certs }
		}
		named := good.Clone()
		named.ServerName = "etcd.test"
		require.NoError(t, until(t, openEtcd(t, "etcds://"+sound.client+"/catalog", etcd.Config{TLS: named})))
		refused("x509.UnknownAuthorityError", sound.client, func(c *tls.Config) { c.RootCAs = theirs.roots() })
		refused("x509.HostnameError", sound.client, func(c *tls.Config) { c.ServerName = "elsewhere" })
		refused("x509.Expired", expired.client, func(*tls.Config) {})
		refused("alert 116", sound.client, as())
		refused("alert 48", sound.client, as(theirs.pair(soon)))
		refused("alert 45", sound.client, as(ours.pair(past)))
		refused("alert 70", sound.client, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 })
	})
}

func (x *matrix) provokeUsers(t *testing.T) {
	m := alone(t)
	root := m.admin(clientv3.Config{})
	x.askUsers(t, root)
	x.in(t, "users", m, func(k *kv) {
		ctx := drivertest.Context(k.t)
		head := drivertest.ReadHead(k.t, k.well)
		for _, user := range []string{"root", "app", "gone"} {
			_, err := root.UserAdd(ctx, user, "right")
			require.NoError(k.t, err)
		}
		_, err := root.RoleAdd(ctx, "root")
		require.NoError(k.t, err)
		_, err = root.UserGrantRole(ctx, "root", "root")
		require.NoError(k.t, err)
		at := func(user string) *etcd.Store {
			return openEtcd(k.t, "etcd://"+user+"@"+m.client+k.url[len("etcd://"+m.client):], etcd.Config{})
		}
		_, err = root.AuthEnable(ctx)
		require.NoError(k.t, err)
		x.expect(k.t, met, "ErrUserEmpty", true, k.after(ctx, k.well, head, 1))
		_, err = at("app:wrong").Head(ctx)
		x.expect(k.t, met, "ErrAuthFailed", false, err)
		x.expect(k.t, met, "ErrPermissionDenied", true, k.after(ctx, at("app:right"), head, 1))

		admin := m.as("root", "right")
		gone := at("gone:right")
		_, err = gone.Head(ctx)
		x.expect(k.t, met, "ErrPermissionDenied", false, err)
		_, err = admin.UserDelete(ctx, "gone")
		require.NoError(k.t, err)
		_, err = gone.Head(ctx)
		x.saw(x.judged(k.t, false, err), met)
		x.ask(k.t, "ErrInvalidAuthMgmt", second(admin.UserDelete(ctx, "root")))
		_, err = admin.AuthDisable(ctx)
		require.NoError(k.t, err)
	})
}

// as returns a client of a user.
func (m *member) as(user, password string) *clientv3.Client {
	m.t.Helper()
	return m.admin(clientv3.Config{Username: user, Password: password})
}

func second[T any](_ T, err error) error { return err }

// ask requires that the table has what a call of an administrator's was
// answered. No driver makes the call, so that none has classified it.
func (x *matrix) ask(t *testing.T, code string, err error) {
	t.Helper()
	require.Error(t, err, code)
	m := x.table.Of(err)
	if m.Code != code {
		t.Errorf("ASK %s gives %s: %v", code, m.Code, err)
		return
	}
	require.Equal(t, driver.Listed, m.Basis)
	x.saw(m, asked)
}
