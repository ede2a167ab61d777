package postgres_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

const application = "several"

// hosts returns a DSN with further hosts behind, or before, the one that it names.
func hosts(t *testing.T, dsn, before, behind string) string {
	t.Helper()
	return testpg.With(t, dsn, func(u *url.URL) {
		u.Host = before + u.Host + behind
		q := u.Query()
		q.Set("application_name", application)
		u.RawQuery = q.Encode()
	})
}

// patient opens a store that waits for every host, however busy the machine is.
func patient(t *testing.T, dsn string) (*postgres.Store, *capture) {
	t.Helper()
	logged, logger := captured()
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{Logger: logger, LookTimeout: soon})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, logged
}

const oldPrimary = "ERROR a server that is not the store of this catalog takes writes: shut it down, or remove it from the DSN"

// A committer commits all the time, and counts.
type committer struct {
	landed, failed atomic.Int64
	end            context.CancelFunc
	done           sync.WaitGroup
}

func commitAlways(t *testing.T, c *catalog.Catalog) *committer {
	ctx, cancel := context.WithCancel(t.Context())
	w := &committer{end: cancel}
	w.done.Go(func() {
		for ctx.Err() == nil {
			if set(c, "v") == nil {
				w.landed.Add(1)
			} else {
				w.failed.Add(1)
			}
		}
	})
	t.Cleanup(w.stop)
	return w
}

func (w *committer) stop() {
	w.end()
	w.done.Wait()
}

// further waits for so many commits more.
func (w *committer) further(t *testing.T, n int64) {
	t.Helper()
	from := w.landed.Load()
	require.Eventually(t, func() bool { return w.landed.Load() >= from+n }, soon, often)
}

func TestAnOldPrimaryThatComesBackPausesNoCommitAndNoClaimIsMadeOnIt(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	dsn := hosts(t, cl.primary.URL, "", ","+cl.standby.Address()) // it asks for nothing, and names the old primary first
	s, logged := patient(t, dsn)
	h, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
	require.NoError(t, err)
	t.Cleanup(func() { _ = h.Close() })
	cl.primary.CaughtUp(cl.standby)
	cl.failOver()
	require.NoError(t, set(h, "after"))
	work := commitAlways(t, h)
	work.further(t, 10)
	before := testpg.Backends(t, cl.standby.URL, application)

	cl.primary.Start()
	work.further(t, 100)
	kept := testpg.Backends(t, cl.standby.URL, application)
	require.Subset(t, kept, before, "no healthy connection is closed because another host is there again")

	terminate(t, cl.standby.URL) // so that every connection is made anew, and reaches the old primary first
	work.further(t, 100)
	require.Eventually(t, func() bool { return len(logged.lines()) > 1 && logged.lines()[len(logged.lines())-1] == oldPrimary }, soon, often)
	work.stop()
	require.Zero(t, work.failed.Load())
	require.NoError(t, h.Err())
	require.Empty(t, testpg.Backends(t, cl.primary.URL, application), "nobody is connected to the old primary")

	s, logged = patient(t, dsn) // as a new process, which has seen nothing
	next, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 2})
	require.NoError(t, err)
	require.Equal(t, "g2.e2", next.Token().String())
	require.NoError(t, next.Close())
	require.Contains(t, logged.lines(), oldPrimary)
	require.Equal(t, "2 2", stampOf(t, cl.standby.URL))
	require.Equal(t, "1 1", stampOf(t, cl.primary.URL), "no claim was made on the old primary")
	showsTheOldPrimary(t, s, cl)
	refusesTheOldPrimaryBesideAStandbyOfTheNewOne(t, cl)
	refusesTheOldPrimaryAlone(t, dsn, cl)
}

// refusesTheOldPrimaryBesideAStandbyOfTheNewOne: a process that has seen nothing, and
// does not reach the new primary, learns of its timeline from a standby.
func refusesTheOldPrimaryBesideAStandbyOfTheNewOne(t *testing.T, cl cluster) {
	t.Helper()
	standby := cl.standby.Standby(t)
	s, _ := patient(t, hosts(t, cl.primary.URL, "", ","+standby.Address()))
	_, err := tryClaim(within(t, soon), s)
	fails(t, err, exitcodes.Retry, driver.NotApplied)
	require.ErrorContains(t, err, "older timeline than one already seen: 1, seen was 2")
	require.Equal(t, "1 1", stampOf(t, cl.primary.URL))
	standby.Stop()
}

// terminate ends every session of the stores.
func terminate(t *testing.T, server string) {
	t.Helper()
	testpg.Exec(t, server, `select pg_terminate_backend(pid) from pg_stat_activity where application_name = '`+application+`'`)
}

func showsTheOldPrimary(t *testing.T, s *postgres.Store, cl cluster) {
	t.Helper()
	shown, err := s.Hosts(within(t, soon))
	require.NoError(t, err)
	require.Len(t, shown, 2)
	old, now := shown[0], shown[1]
	require.Equal(t, []any{cl.primary.Address(), true, "primary", uint32(1)}, []any{old.Address, old.Reachable, old.Role, old.Timeline})
	require.Equal(t, []any{cl.standby.Address(), true, "primary", uint32(2)}, []any{now.Address, now.Reachable, now.Role, now.Timeline})
	require.Equal(t, old.System, now.System)
	require.NotEmpty(t, old.System)
	require.Equal(t, driver.Warning, old.Grade)
	require.Contains(t, old.Problem, "it still takes writes, and timeline 2 has taken over")
	require.NotEmpty(t, old.Remedy)
	require.Equal(t, driver.Fine, now.Grade)

	report := catalog.Preflight(within(t, soon), s, catalog.Config{Generation: 3})
	require.Equal(t, shown, report.Hosts)
	require.Contains(t, report.Checks, driver.Finding{Name: catalog.CheckHosts, Grade: driver.Warning, Detail: old.String(), Remedy: old.Remedy})
}

// refusesTheOldPrimaryAlone: a process that has seen the new primary does not take
// the old one for the store when the new one has gone.
func refusesTheOldPrimaryAlone(t *testing.T, dsn string, cl cluster) {
	t.Helper()
	s, _ := patient(t, dsn)
	_, err := s.Head(within(t, soon))
	require.NoError(t, err)
	cl.standby.Stop()
	_, err = tryClaim(within(t, soon), s)
	fails(t, err, exitcodes.Retry, driver.NotApplied)
	require.ErrorContains(t, err, "older timeline than one already seen: 1, seen was 2")
	require.ErrorContains(t, err, cl.primary.Address(), "the host is named")
	require.Equal(t, "1 1", stampOf(t, cl.primary.URL))
}

func TestNoClaimIsMadeWhereACopyOfTheStoreTakesWritesOnTheSameTimeline(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	s, _ := patient(t, hosts(t, cl.primary.URL, "", ","+cl.standby.Address()))
	head := claim(t, s)
	cl.primary.CaughtUp(cl.standby)
	shown, err := s.Hosts(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, []any{"standby", uint32(1), driver.Fine}, []any{shown[1].Role, shown[1].Timeline, shown[1].Grade})
	require.Equal(t, shown[0].System, shown[1].System)
	cl.standby.Split()
	_, err = tryClaim(within(t, soon), s)
	fails(t, err, exitcodes.Retry, driver.NotApplied)
	require.ErrorContains(t, err, cl.primary.Address())
	require.ErrorContains(t, err, cl.standby.Address())
	shown, err = s.Hosts(within(t, soon))
	require.NoError(t, err)
	for _, h := range shown {
		require.Equal(t, driver.Failure, h.Grade)
	}
	require.NoError(t, s.Append(within(t, soon), head, next(head)), "the holder is not disturbed")
}

func TestNoClaimIsMadeWhereTheHostsAreOfTwoSystems(t *testing.T) {
	t.Parallel()
	own, other := testpg.NewServer(t), testpg.NewServer(t)
	s, _ := patient(t, hosts(t, own.URL, "", ","+other.Address()))
	_, err := tryClaim(within(t, soon), s)
	e := fails(t, err, exitcodes.Halt, driver.NotApplied)
	require.Equal(t, exitcodes.Config, e.ExitCode())
	require.ErrorContains(t, err, own.Address())
	require.ErrorContains(t, err, other.Address())
	for _, server := range []*testpg.Server{own, other} {
		head, err := open(t, server.URL).Head(within(t, soon))
		require.NoError(t, err)
		require.True(t, head.IsZero())
	}

	p, through := newProxy(t, own.URL)
	moving, _ := patient(t, through)
	claim(t, moving)
	p.server.Store(other.Address())
	p.cut()
	require.Eventually(t, func() bool {
		_, err = moving.Head(within(t, soon))
		return errors.As(err, &e) && e.ExitCode() == exitcodes.Config
	}, soon, often)
	require.ErrorContains(t, err, "the newest claim was made on another system")
	require.ErrorContains(t, err, p.Addr().String(), "the host is named")
}

// mutes returns the address of a host that takes connections and says nothing.
func mutes(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func TestAHostThatHangsOrIsNotThereKeepsNoClaimOut(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	for name, host := range map[string]string{"hangs": mutes(t), "is not there": "127.0.0.1:1"} {
		s, err := postgres.Open(t.Context(), withParam(t, hosts(t, dsn, host+",", ""), "connect_timeout", "1"), postgres.Config{})
		require.NoError(t, err)
		claim(t, s)
		shown, err := s.Hosts(within(t, soon))
		require.NoError(t, err)
		require.Equal(t, host, shown[0].Address, name)
		require.False(t, shown[0].Reachable)
		require.NotEmpty(t, shown[0].Problem)
		require.Equal(t, u.Host, shown[1].Address)
		require.NoError(t, s.Close())
	}
}

func TestOneServerUnderTwoNamesIsOneStore(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	s, logged := patient(t, hosts(t, dsn, "localhost:"+u.Port()+",", ""))
	claim(t, s)
	require.Empty(t, logged.lines())
	shown, err := s.Hosts(within(t, soon))
	require.NoError(t, err)
	require.Len(t, shown, 2)
	for _, h := range shown {
		require.Equal(t, driver.Fine, h.Grade, h.String())
	}
}

func TestWithOneHostNothingIsLookedAt(t *testing.T) {
	t.Parallel()
	p, through := newProxy(t, testpg.URL(t))
	s := open(t, through)
	c, err := s.Claim(within(t, soon))
	require.NoError(t, err)
	c.Abandon()
	require.EqualValues(t, 1, p.conns.Load())
}

func TestTheHooksOfAPoolRunForEveryConnection(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	role := "r" + driver.NewID().String()
	testpg.Exec(t, dsn, "create role "+role+" login password '"+secret+"'", "grant create on database "+database(t, dsn)+" to "+role)
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop owned by "+role, "drop role "+role) })
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	config, err := pgxpool.ParseConfig(testpg.With(t, hosts(t, dsn, "localhost:"+u.Port()+",", ""), func(u *url.URL) { u.User = url.User(role) }))
	require.NoError(t, err)
	var validated, connected atomic.Int64
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		c.Password = secret
		return nil
	}
	config.ConnConfig.ValidateConnect = func(context.Context, *pgconn.PgConn) error { validated.Add(1); return nil }
	config.ConnConfig.AfterConnect = func(context.Context, *pgconn.PgConn) error { connected.Add(1); return nil }
	postgres.Prepare(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	defer pool.Close()
	s, err := postgres.Open(t.Context(), "postgres:///", postgres.Config{Pool: pool, LookTimeout: soon})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	claim(t, s)
	require.Positive(t, validated.Load())
	require.Equal(t, validated.Load(), connected.Load())
	shown, err := s.Hosts(within(t, soon))
	require.NoError(t, err)
	for _, h := range shown {
		require.True(t, h.Reachable, h.String())
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	require.ErrorIs(t, s.Watch(ctx, cancel), context.Canceled, "the connection that listens has the password, too")
}

func TestTheHostThatTakesWritesIsDialedFirst(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	config, err := pgxpool.ParseConfig(withParam(t, hosts(t, dsn, "127.0.0.1:1,", ""), "sslmode", "prefer"))
	require.NoError(t, err)
	var dialed []string // before the host is, so that a password can be made for it
	var mu sync.Mutex
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		mu.Lock()
		defer mu.Unlock()
		if len(c.Fallbacks) > 1 { // no look, which is at one host, with and without TLS
			dialed = append(dialed, c.Host+":"+strconv.Itoa(int(c.Port)))
		}
		return nil
	}
	postgres.Prepare(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	defer pool.Close()
	s, err := postgres.Open(t.Context(), "postgres:///", postgres.Config{Pool: pool, LookTimeout: soon})
	require.NoError(t, err)
	claim(t, s)
	require.NoError(t, s.Close())
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	require.NotEmpty(t, dialed)
	for _, host := range dialed {
		require.Equal(t, u.Host, host)
	}
}

func database(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	return u.Path[1:]
}

// A process that was stopped during the fail-over has seen nothing of it.
func TestAConnectionIsMadeAnewToTheNewPrimaryByAProcessThatMissedTheFailOver(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	s, _ := patient(t, hosts(t, cl.primary.URL, "", ","+cl.standby.Address()))
	head := claim(t, s)
	cl.primary.CaughtUp(cl.standby)
	cl.failOver()
	cl.primary.Start()
	rec := next(head)
	ctx := within(t, soon)
	var err error
	require.Eventually(t, func() bool {
		err = s.Append(ctx, head, rec)
		return err == nil || ctx.Err() != nil
	}, soon, often)
	require.NoError(t, err)
	for server, want := range map[*testpg.Server]driver.ID{cl.standby: rec.ID, cl.primary: head.Commit} {
		now, err := open(t, server.URL).Head(within(t, soon))
		require.NoError(t, err)
		require.Equal(t, want, now.Commit, "of %s", server.Address())
	}
}
