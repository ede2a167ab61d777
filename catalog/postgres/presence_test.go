package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/crashtest"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestNobodyIsShownThroughAPoolerInTransactionMode(t *testing.T) {
	t.Parallel()
	s := open(t, throughPooler(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.ErrorIs(t, s.Present(ctx, driver.NewID(), func() { t.Error("shown") }), driver.ErrNoPresence)
	require.ErrorIs(t, s.WatchPresence(ctx, driver.NewID(), func() { t.Error("lost") }), driver.ErrNoPresence)
}

// A session that the server ends is a hint, and Present says that it ended.
func TestThePresenceOfASessionThatIsTerminatedEnds(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	holder, standby := open(t, dsn), open(t, dsn)
	claim := driver.NewID()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	shown, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() { ended <- holder.Present(ctx, claim, func() { shown <- struct{}{} }) }()
	<-shown
	lost, watched := make(chan struct{}, 1), make(chan error, 1)
	go func() { watched <- standby.WatchPresence(ctx, claim, func() { lost <- struct{}{} }) }()
	admin, err := pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close(t.Context())) }()
	require.Eventually(t, func() bool { // once the watcher has looked
		select {
		case err := <-ended:
			require.Error(t, err)
			ended <- err
			return true
		case <-time.After(2 * time.Second):
			_, err := admin.Exec(ctx, `select pg_terminate_backend(pid) from pg_locks
				where locktype = 'advisory' and mode = 'ShareLock'
					and database = (select oid from pg_database where datname = current_database())`)
			require.NoError(t, err)
			return false
		}
	}, time.Minute, time.Millisecond)
	<-lost
	require.Error(t, <-ended)
	cancel()
	require.Error(t, <-watched)
}

func TestTheDeathOfAProcessThatShowsAClaimIsTold(t *testing.T) {
	t.Parallel()
	crashtest.RunPresence(t, testpg.URL(t), openAt, 5*time.Second)
}

// present shows a claim, and returns a channel that gets why that ended.
func present(ctx context.Context, t *testing.T, s *postgres.Store, claim driver.ID) <-chan error {
	t.Helper()
	shown, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.Present(ctx, claim, func() { close(shown) }) }()
	select {
	case <-shown:
	case err := <-done:
		require.FailNow(t, "not shown", "%v", err)
	}
	return done
}

// watchPresence returns channels that get the losses of a claim, and why the
// watch ended.
func watchPresence(ctx context.Context, s *postgres.Store, claim driver.ID) (lost chan struct{}, done chan error) {
	lost, done = make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- s.WatchPresence(ctx, claim, func() { lost <- struct{}{} }) }()
	return lost, done
}

// told reports whether a loss is before so much time has passed.
func told(lost <-chan struct{}, within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-lost:
		return true
	case <-timer.C:
		return false
	}
}

// locks returns how many advisory locks there are in the database.
func locks(t *testing.T, dsn string) (n int) {
	t.Helper()
	require.NoError(t, testpg.Connect(t, dsn).QueryRow(t.Context(), `select count(*) from pg_locks
		where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`).Scan(&n))
	return n
}

func TestAPresenceWhoseBackendIsTerminatedIsLostAndMayBeShownAgain(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, withParam(t, dsn, "application_name", "shows"))
	claim := driver.NewID()
	ctx, cancel := context.WithCancel(t.Context())
	done := present(ctx, t, s, claim)
	lost, watching := watchPresence(ctx, open(t, dsn), claim)
	require.False(t, told(lost, 2*time.Second), "lost, and it is shown")
	testpg.Exec(t, dsn, `select pg_terminate_backend(pid) from pg_stat_activity
		where datname = current_database() and application_name = 'shows'`)
	fails(t, <-done, exitcodes.Retry, driver.NotApplied)
	require.True(t, told(lost, drivertest.Patience))
	require.False(t, told(lost, 2*time.Second), "told twice")
	done = present(ctx, t, s, claim)
	require.False(t, told(lost, 2*time.Second), "lost, and it is shown again")
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	<-watching
}

func TestNoLockIsLeftBehindAPooler(t *testing.T) {
	t.Parallel()
	direct := testpg.URL(t)
	s := open(t, testpg.NewPooler(t, direct, 5).URL)
	for _, call := range []func(context.Context, driver.ID, func()) error{s.Present, s.WatchPresence} {
		err := call(within(t, soon), driver.NewID(), func() { t.Error("called behind a pooler") })
		fails(t, err, exitcodes.None, driver.NotApplied)
	}
	require.Zero(t, locks(t, direct))
}

// A pool whose connections are all in use, for as long as that lasts, costs
// neither the presence of a process nor the sight of another's.
func TestAPresenceNeedsNoConnectionOfTheApplicationsPool(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	pool := poolTracedBy(t, dsn, new(tracer))
	defer pool.Close()
	for range pool.Config().MaxConns {
		conn, err := pool.Acquire(within(t, soon))
		require.NoError(t, err)
		defer conn.Release()
	}
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{Pool: pool})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	claim := driver.NewID()
	ctx, cancel := context.WithCancel(t.Context())
	lost, watching := watchPresence(ctx, s, claim)
	seeLoss(ctx, t, s, claim, lost)
	cancel()
	require.ErrorIs(t, <-watching, context.Canceled)
}

// seeLoss shows claim and hides it, for longer each time, until that is told.
func seeLoss(ctx context.Context, t *testing.T, s *postgres.Store, claim driver.ID, lost <-chan struct{}) {
	t.Helper()
	for life := 100 * time.Millisecond; life < time.Minute; life *= 2 {
		showing, hide := context.WithCancel(ctx)
		done := present(showing, t, s, claim)
		require.False(t, told(lost, life))
		hide()
		require.ErrorIs(t, <-done, context.Canceled)
		if told(lost, 3*time.Second) {
			return
		}
	}
	require.FailNow(t, "no loss was told")
}

func TestAPresenceEndsAloneOnAConnectionThatOthersShare(t *testing.T) {
	t.Parallel()
	dsn := withParam(t, testpg.URL(t), "application_name", "shared")
	server, err := postgres.Connect(t.Context(), dsn, postgres.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	a, err := server.Open(t.Context(), "a")
	require.NoError(t, err)
	b, err := server.Open(t.Context(), "b")
	require.NoError(t, err)
	ofA, ofB := driver.NewID(), driver.NewID()
	doneA, doneB := present(t.Context(), t, a, ofA), present(t.Context(), t, b, ofB)
	require.Equal(t, 2, locks(t, dsn))
	require.NoError(t, a.Close())
	require.ErrorContains(t, <-doneA, "the store is closed")
	require.Eventually(t, func() bool { return locks(t, dsn) == 1 }, soon, often)
	require.Empty(t, doneB)
	require.NoError(t, b.Close())
	require.ErrorContains(t, <-doneB, "the store is closed")
	require.Eventually(t, func() bool { return locks(t, dsn) == 0 }, soon, often)
}

func TestThePresenceOfManyIsWatchedByAHandfulOfStatements(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	counted := new(tracer)
	pool := poolTracedBy(t, dsn, counted)
	defer pool.Close()
	server, err := postgres.Connect(t.Context(), dsn, postgres.Config{Pool: pool})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	const watched = 500
	var claims [watched]driver.ID
	var losses [watched]chan struct{}
	var ended [watched]chan error
	for i := range watched {
		s, err := server.Open(t.Context(), tenant(i))
		require.NoError(t, err)
		claims[i] = driver.NewID()
		losses[i], ended[i] = watchPresence(ctx, s, claims[i])
	}
	other := open(t, dsn)
	seeLoss(ctx, t, other, claims[7], losses[7])
	before := counted.statements.Load()
	require.False(t, told(losses[8], 3*time.Second))
	sent := counted.statements.Load() - before
	t.Logf("%d statements for %d watchers in 3 s", sent, watched)
	require.Less(t, sent, int64(watched/5))
	seeLoss(ctx, t, other, claims[8], losses[8])
	require.LessOrEqual(t, len(testpg.Backends(t, dsn, "")), handful)
	cancel()
	for i := range watched {
		require.ErrorIs(t, <-ended[i], context.Canceled)
		require.Empty(t, losses[i])
	}
	require.NoError(t, server.Close())
}

// Each takes room in the server's table of locks, which all its databases share.
func TestAProcessShowsAThousandClaimsAndNoMore(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	server, err := postgres.Connect(t.Context(), dsn, postgres.Config{})
	require.NoError(t, err)
	s, err := server.Open(t.Context(), "main")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	first, hide := context.WithCancel(ctx)
	firstDone := present(first, t, s, driver.NewID())
	done := make([]<-chan error, many-1)
	for i := range done {
		done[i] = present(ctx, t, s, driver.NewID())
	}
	require.Equal(t, many, locks(t, dsn))
	err = s.Present(within(t, soon), driver.NewID(), func() { t.Error("one too many is shown") })
	require.ErrorContains(t, err, "1000 claims already")
	fails(t, err, exitcodes.Retry, driver.NotApplied)
	require.LessOrEqual(t, len(testpg.Backends(t, dsn, "")), handful)
	hide()
	require.ErrorIs(t, <-firstDone, context.Canceled)
	last := present(ctx, t, s, driver.NewID())
	cancel()
	for _, done := range append(done, last) {
		require.ErrorIs(t, <-done, context.Canceled)
	}
	require.NoError(t, server.Close())
}
