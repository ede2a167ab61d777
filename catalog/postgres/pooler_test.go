package postgres_test

import (
	"context"
	"errors"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
)

// throughPooler returns the URL of an empty database behind a PgBouncer in
// transaction mode.
func throughPooler(t *testing.T) string {
	t.Helper()
	return testpg.NewPooler(t, testpg.URL(t), 60).URL
}

// A pooler in transaction mode wakes nobody, so that the store is tested as one
// that is no driver.Watcher.
func TestStoreKeepsTheContractThroughAPooler(t *testing.T) {
	t.Parallel()
	catalogs := catalogsOf(throughPooler(t))
	drivertest.RunStore(t, func(t *testing.T) func(*testing.T) driver.Store {
		open := catalogs(t)
		return func(t *testing.T) driver.Store { return struct{ driver.Store }{open(t)} }
	})
}

// Each statement is played behind the pooler by the store's contract, so that a third of
// the protocol is enough here. The cases about large numbers would be a minute of
// computing.
func TestTheProtocolHoldsThroughAPooler(t *testing.T) {
	t.Parallel()
	drivertest.RunProtocol(t, catalogsOf(throughPooler(t)), drivertest.Part(0, 3), drivertest.Except(
		"a claimer succeeds, 100 of 100 times, while the holder commits from 64 writers without a pause",
		"1,000 concurrent calls for the next generation give 1,000 different numbers",
		"10,000 entries of 1 KiB commit atomically",
		"10,000 entries of 1 KiB that a migration writes commit atomically, with the claim",
		"Updates share a commit of 4 MiB at most",
		"entries written over and over leave at most ten times their bytes",
	))
}

// preparing counts the statements that are prepared by a name of their own.
type preparing struct {
	tracer
	prepared atomic.Int64
}

func (p *preparing) TracePrepareStart(ctx context.Context, _ *pgx.Conn, data pgx.TracePrepareStartData) context.Context {
	if data.Name != "" {
		p.prepared.Add(1)
	}
	return ctx
}

func (*preparing) TracePrepareEnd(context.Context, *pgx.Conn, pgx.TracePrepareEndData) {}

func TestNoStatementIsPreparedThroughAPooler(t *testing.T) {
	t.Parallel()
	direct := testpg.URL(t)
	pooler := testpg.NewPooler(t, direct, 5)
	for dsn, prepares := range map[string]bool{direct: true, pooler.URL: false} {
		counted := new(preparing)
		pool := poolTracedBy(t, dsn, counted)
		s, err := postgres.Open(t.Context(), dsn, postgres.Config{Pool: pool})
		require.NoError(t, err)
		head := claim(t, s)
		for range 3 {
			rec := next(head)
			require.NoError(t, s.Append(within(t, soon), head, rec))
			head = head.After(rec)
			_, err := s.Head(within(t, soon))
			require.NoError(t, err)
		}
		require.Equal(t, prepares, counted.prepared.Load() > 0)
		require.NoError(t, s.Close())
		pool.Close()
	}
}

// A session behind a pooler is the next client's, which rests on its own settings.
func TestNoSettingIsLeftInASessionOfAPooler(t *testing.T) {
	t.Parallel()
	direct := testpg.URL(t)
	testpg.Exec(t, direct, "alter database "+database(t, direct)+" set bytea_output = escape",
		"alter database "+database(t, direct)+" set synchronous_commit = off", "alter database "+database(t, direct)+" set client_min_messages = error")
	dsn := testpg.NewPooler(t, direct, 1).URL
	other := testpg.Connect(t, dsn)
	settings := func() (pid int, own []string) {
		require.NoError(t, other.QueryRow(t.Context(), `select pg_backend_pid(), coalesce(array_agg(name || ' = ' || setting), '{}') from pg_settings
			where source = 'session' and name <> all (array['application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings'])`,
			pgx.QueryExecModeExec).Scan(&pid, &own)) // but for those that the pooler sets for each client
		return pid, own
	}
	backend, own := settings()
	require.Empty(t, own)
	s := open(t, dsn)
	head := claim(t, s)
	rec := next(head)
	require.NoError(t, s.Append(within(t, soon), head, rec))
	head = head.After(rec)
	for _, call := range compactions(s, head) {
		require.NoError(t, call(within(t, soon)))
	}
	_, err := s.Post(within(t, soon), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)
	drivertest.ReadNotes(t, s, "")
	l, err := s.Losses(within(t, soon))
	require.NoError(t, err)
	l.Text = []byte("loss")
	_, err = s.PutLosses(within(t, soon), l, &head)
	require.NoError(t, err)
	require.NoError(t, s.Snapshot(within(t, soon), func(driver.Snapshot, []byte) error { return nil }))
	drivertest.ReadLog(t, s, head.Revision-1)
	claim(t, s)
	same, own := settings()
	require.Equal(t, backend, same, "there is but one session")
	require.Empty(t, own)
}

// LISTEN reaches nobody through a pooler in transaction mode.
func TestAFenceIsNoticedByPollingThroughAPooler(t *testing.T) {
	t.Parallel()
	direct := testpg.URL(t)
	pooler := testpg.NewPooler(t, direct, 5)
	s := open(t, pooler.URL)
	config := process(1)
	config.PollInterval = 20 * time.Millisecond
	held, err := catalog.Open(t.Context(), s, config)
	require.NoError(t, err)
	defer func() { _ = held.Close() }()
	follower, err := catalog.Follow(t.Context(), open(t, pooler.URL), config)
	require.NoError(t, err)
	defer func() { _ = follower.Close() }()
	require.NoError(t, put(t, held, "value"))
	require.NoError(t, held.Confirm(within(t, soon)))
	require.NoError(t, follower.Wait(within(t, soon), func(h driver.Head) bool { return h.Commit == held.Head().Commit }))

	// A watcher has begun behind the pooler, and hears of no claim.
	var woken atomic.Int64
	watched, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Watch(watched, func() { woken.Add(1) }) }()
	require.Eventually(t, func() bool { return woken.Load() == 1 }, soon, often)

	taker, err := catalog.Open(t.Context(), open(t, pooler.URL), process(2))
	require.NoError(t, err)
	defer func() { require.NoError(t, taker.Close()) }()
	<-held.Done()
	require.ErrorIs(t, held.Err(), fence.ErrSuperseded)
	<-follower.Done()
	require.ErrorIs(t, follower.Err(), fence.ErrSuperseded)
	require.Error(t, put(t, held, "late"))
	require.NoError(t, put(t, taker, "next"))
	stop()
	<-done
	require.EqualValues(t, 1, woken.Load())
}

func TestAClaimThatIsCutInItsTransactionReleasesTheHeadThroughAPooler(t *testing.T) {
	t.Parallel()
	direct := testpg.URL(t)
	pooler := testpg.NewPooler(t, direct, 5)
	other := open(t, direct)
	claim(t, other)
	p, through := newProxy(t, pooler.URL)
	t.Run("the store is closed", func(t *testing.T) {
		cutClaim(t, through, other, func(s *postgres.Store) { require.NoError(t, s.Close()) })
	})
	t.Run("the connection is cut", func(t *testing.T) { cutClaim(t, through, other, func(*postgres.Store) { p.cut() }) })
	t.Run("the pooler dies", func(t *testing.T) { cutClaim(t, through, other, func(*postgres.Store) { pooler.Kill() }) })
}

func cutClaim(t *testing.T, dsn string, other *postgres.Store, cut func(*postgres.Store)) {
	s := open(t, dsn)
	c, err := s.Claim(within(t, soon))
	require.NoError(t, err)
	before := c.Head()
	cut(s)
	require.Equal(t, before.Claim.Token.Epoch+1, claim(t, other).Claim.Token.Epoch)
	claimed, rec := nextClaim(before)
	err = c.Install(within(t, soon), claimed, rec)
	require.Error(t, err)
	require.NotEqual(t, exitcodes.Panic, exitcodes.Of(err), err)
	now, err := other.Head(within(t, soon))
	require.NoError(t, err)
	require.NotEqual(t, rec.ID, now.Commit)
}

// asks returns what becomes of one call through a pooler.
func asks(t *testing.T, dsn string) error {
	t.Helper()
	_, err := open(t, dsn).Head(within(t, soon))
	return err
}

func as(t *testing.T, dsn, user, password string) string {
	return testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(user, password) })
}

func TestAPasswordOrUserThatAPoolerRefusesHaltsWith78(t *testing.T) {
	t.Parallel()
	pooler := testpg.NewPooler(t, testpg.URL(t), 5, testpg.PoolerUsers("scram-sha-256", "app", "right"))
	right := open(t, as(t, pooler.URL, "app", "right"))
	claim(t, right)
	_, err := right.Head(within(t, soon))
	require.NoError(t, err)
	for user, password := range map[string]string{"app": "wrong", "nobody": "right"} {
		err := asks(t, as(t, pooler.URL, user, password))
		e := fails(t, err, exitcodes.Halt, driver.NotApplied)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
		require.Contains(t, e.Remedy, "correct user and password")
	}
}

// What a pooler says then may pass, and its one code does not tell.
func TestWhatAPoolerSaysAtTheDoorOtherwiseIsRetriedAndNamesWhatMayBeWrong(t *testing.T) {
	t.Parallel()
	server := testpg.URL(t)
	for name, pooler := range map[string]*testpg.Pooler{
		"an MD5 password":  testpg.NewPooler(t, server, 5, testpg.PoolerUsers("md5", "app", "right")),
		"a plain password": testpg.NewPooler(t, server, 5, testpg.PoolerUsers("plain", "app", "right")),
		"no such database": testpg.NewPooler(t, server, 5, testpg.PoolerDatabase("other")),
		"no room for more": testpg.NewPooler(t, server, 5, testpg.PoolerSetting("max_client_conn = 0")),
	} {
		t.Run(name, func(t *testing.T) {
			e := fails(t, asks(t, as(t, pooler.URL, "app", "wrong")), exitcodes.Retry, driver.NotApplied)
			require.Contains(t, e.Remedy, "check user, password and database")
		})
	}
}

func TestAStoreThatAPoolerTurnedAwayGoesOnOnceTheServerIsBack(t *testing.T) {
	t.Parallel()
	server := testpg.NewServer(t)
	pooler := testpg.NewPooler(t, server.URL, 5, testpg.PoolerSetting("query_wait_timeout = 1"), testpg.PoolerSetting("server_login_retry = 1"))
	s := open(t, pooler.URL)
	claim(t, s)
	server.Stop()
	require.Eventually(t, func() bool {
		_, err := s.Head(within(t, soon))
		var answer *pgconn.PgError
		require.Error(t, err)
		require.Equal(t, exitcodes.Retry, exitcodes.Of(err), err)
		return errors.As(err, &answer) && answer.Code == "08P01"
	}, soon, often)
	server.Start()
	require.Eventually(t, func() bool { _, err := s.Head(within(t, soon)); return err == nil }, soon, often)
}
