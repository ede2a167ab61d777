package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/step"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestACommitIsRefusedUnderAnyOtherHead(t *testing.T) {
	t.Parallel()
	s := open(t, testpg.URL(t))
	head := claim(t, s)
	rec := next(head)
	require.NoError(t, s.Append(within(t, soon), head, rec))
	err := s.Append(within(t, soon), head, rec)
	require.ErrorIs(t, err, driver.ErrConflict)
	fails(t, err, exitcodes.None, driver.NotApplied)
	got, err := s.Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, head.After(rec), got)
	require.Equal(t, rec, records(t, s)[1])
}

func TestACommitAboveTheLimitIsRefusedBeforeItIsSent(t *testing.T) {
	t.Parallel()
	s := open(t, testpg.URL(t))
	head := claim(t, s)
	rec := next(head)
	rec.Payload = make([]byte, s.Limits().Payload+1)
	err := s.Append(within(t, soon), head, rec)
	require.ErrorIs(t, err, driver.ErrTooLarge)
	fails(t, err, exitcodes.None, driver.NotApplied)
	_, err = s.Post(within(t, soon), driver.Note{Key: "k", Value: make([]byte, s.Limits().Note+1)})
	require.ErrorIs(t, err, driver.ErrTooLarge)
}

// The commit's backend is stopped inside its own commit, while it waits in a
// trigger and holds the head's row.
func TestACommitWhoseBackendHangsIsUnknownAndSentAgainLandsOnce(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	head := claim(t, s)
	rec := next(head)
	release := holdCommits(t, dsn)

	ctx, expire := expires(t)
	first := async(func() error { return s.Append(ctx, head, rec) })
	resume := testpg.Pause(t, waiting(t, dsn))
	release()
	expire()
	fails(t, <-first, exitcodes.Retry, driver.Unknown)
	ctx, expire = expires(t)
	second := async(func() error { return s.Append(ctx, head, rec) })
	waitingAre(t, dsn, 2) // the stopped one can't say that it no longer waits
	expire()
	fails(t, <-second, exitcodes.Retry, driver.Unknown)
	waitingAre(t, dsn, 1)

	again := async(func() error { return s.Append(within(t, soon), head, rec) })
	waitingAre(t, dsn, 2)
	require.Len(t, records(t, s), 1, "nothing to be read settles it")
	resume()
	if err := <-again; err != nil {
		require.ErrorIs(t, err, driver.ErrConflict)
	}
	got, err := s.Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, head.After(rec), got)
	require.Len(t, records(t, s), 2)
}

// Stopped before it has the row, it is overtaken by what is sent again.
func TestACommitThatHangsBeforeItHasTheHeadNeverLandsOnceItIsOvertaken(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	head := claim(t, s)
	rec := next(head)
	lock := lockHead(t, dsn)
	first := make(chan error, 1)
	ctx, giveUp := context.WithCancel(t.Context())
	go func() { first <- s.Append(ctx, head, rec) }()
	resume := testpg.Pause(t, waiting(t, dsn))
	_, err := lock.Exec(t.Context(), `rollback`)
	require.NoError(t, err)
	giveUp()
	fails(t, <-first, exitcodes.None, driver.Unknown)
	require.NoError(t, s.Append(within(t, soon), head, rec))
	resume()
	head = head.After(rec)
	require.NoError(t, s.Append(within(t, soon), head, next(head)))
	require.Len(t, records(t, s), 3)
}

func TestACommitWithoutAnAnswerIsUnknownThoughItHasLanded(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	p, through := newProxy(t, dsn)
	s := open(t, through)
	head := claim(t, s)
	warm := next(head)
	require.NoError(t, s.Append(within(t, soon), head, warm)) // prepares the statement
	head = head.After(warm)
	rec := next(head)
	ctx := step.With(within(t, soon), func(pt step.Point) { p.mute.Store(pt == step.CommitBegun) })
	fails(t, s.Append(ctx, head, rec), exitcodes.Retry, driver.Unknown)
	p.mute.Store(false)
	require.Eventually(t, func() bool { return len(records(t, open(t, dsn))) == 3 }, soon, often)
	require.ErrorIs(t, s.Append(within(t, soon), head, rec), driver.ErrConflict)
}

// pgx calls such a COMMIT safe to retry.
func TestAClaimWhoseCommitHasNoAnswerIsUnknownThoughItHasLanded(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	p, through := newProxy(t, dsn)
	s := open(t, through)
	claim(t, s)
	ctx := within(t, soon)
	release := holdCommits(t, dsn)
	c, err := s.Claim(ctx)
	require.NoError(t, err)
	next, rec := nextClaim(c.Head())
	done := make(chan error, 1)
	go func() { done <- c.Install(ctx, next, rec) }()
	waiting(t, dsn)
	p.mute.Store(true)
	release()
	e := fails(t, <-done, exitcodes.Retry, driver.Unknown)
	require.Equal(t, "install", e.Op)
	require.Eventually(t, func() bool { return len(records(t, open(t, dsn))) == 2 }, soon, often)
}

func TestABackendThatIsTerminatedLeavesTheCommitUnknown(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	head := claim(t, s)
	lock := lockHead(t, dsn)
	done := make(chan error, 1)
	go func() { done <- s.Append(within(t, soon), head, next(head)) }()
	backend := waiting(t, dsn)
	_, err := lock.Exec(t.Context(), `select pg_terminate_backend($1)`, backend)
	require.NoError(t, err)
	fails(t, <-done, exitcodes.Retry, driver.Unknown)
}

func TestACommitCancelledByTheServerIsNotApplied(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	head := claim(t, s)
	lock := lockHead(t, dsn)
	done := make(chan error, 1)
	go func() { done <- s.Append(within(t, soon), head, next(head)) }()
	backend := waiting(t, dsn)
	_, err := lock.Exec(t.Context(), `select pg_cancel_backend($1)`, backend)
	require.NoError(t, err)
	fails(t, <-done, exitcodes.Retry, driver.NotApplied)
}

func TestACancelledWaitForTheSynchronousStandbyIsUnknownThoughTheServerSaysDone(t *testing.T) {
	t.Parallel()
	server := testpg.NewServer(t)
	dsn := testpg.Database(t, server.URL)
	s, empty := open(t, dsn), open(t, testpg.Database(t, server.URL))
	head := claim(t, s)
	lost, err := s.Losses(within(t, soon))
	require.NoError(t, err)
	lost.Text = []byte("lost")
	testpg.CommitsWaitFor(t, dsn, "*")
	t.Cleanup(func() {
		testpg.Exec(t, dsn, `alter system reset synchronous_standby_names`, `select pg_reload_conf()`)
	})
	conn := testpg.Connect(t, dsn)
	cut := func() bool {
		var n int
		require.NoError(t, conn.QueryRow(t.Context(), `select count(pg_cancel_backend(pid)) from pg_stat_activity
			where application_name = 'fencepost' and wait_event = 'SyncRep'`).Scan(&n))
		return n > 0
	}
	for _, call := range []func() error{
		func() error { return s.Append(within(t, soon), head, next(head)) },
		func() error { _, err := tryClaim(within(t, soon), s); return err },
		func() error { _, err := s.PutLosses(within(t, soon), lost, nil); return err },
		func() error {
			_, err := empty.Post(within(t, soon), driver.Note{Key: "first", Value: []byte("v")})
			return err
		},
	} {
		done := async(call)
		require.Eventually(t, cut, soon, often)
		fails(t, <-done, exitcodes.Retry, driver.Unknown)
	}
	require.Len(t, records(t, s), 3, "both are here")
	found, err := s.Losses(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, lost.Text, found.Text)
	require.Len(t, drivertest.ReadNotes(t, empty, ""), 1)
}

func TestAStarvedPoolDoesNotStopTheHeadNorTheWatch(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{MaxConns: 1})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	want := claim(t, s)
	c, err := s.Claim(within(t, soon)) // takes the only connection
	require.NoError(t, err)
	defer c.Abandon()
	fails(t, s.Append(within(t, 100*time.Millisecond), want, next(want)), exitcodes.Retry, driver.NotApplied)
	got, err := s.Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, want, got)
	ctx, cancel := context.WithCancel(t.Context())
	fails(t, s.Watch(ctx, cancel), exitcodes.None, driver.NotApplied)
}

// TestACommitThatATriggerSwallowsIsNeverAcknowledged is about a trigger that was put
// on every table of the database, such as for auditing, and returns no row.
func TestACommitThatATriggerSwallowsIsNeverAcknowledged(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
	require.NoError(t, err)
	testpg.Exec(t, dsn, `create function public.audit() returns trigger language plpgsql as $$ begin return null; end $$`,
		`create trigger audit before insert on fencepost.log for each row execute function public.audit()`)
	err = c.Update(within(t, soon), func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, "k", []byte("v")) })
	require.ErrorIs(t, err, driver.ErrCorrupt)
	require.ErrorContains(t, err, "trigger")
	require.ErrorIs(t, c.Close(), driver.ErrCorrupt)
}
