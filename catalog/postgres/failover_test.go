package postgres_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testpg"
)

// A cluster is a primary with an asynchronous standby, and a DSN that names
// both and leads to the one that takes writes.
type cluster struct {
	primary, standby *testpg.Server
	dsn              string
}

func newCluster(t *testing.T) cluster {
	t.Helper()
	c := cluster{primary: testpg.NewServer(t)}
	c.standby = c.primary.Standby(t)
	c.dsn = testpg.With(t, c.primary.URL, func(u *url.URL) {
		u.Host += "," + c.standby.Address()
		q := u.Query()
		q.Set("target_session_attrs", "read-write")
		u.RawQuery = q.Encode()
	})
	return c
}

// failOver crashes the primary and promotes the standby.
func (c cluster) failOver() {
	c.primary.Crash()
	c.standby.Promote()
}

func holder(t *testing.T, dsn string, g generation.Generation) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), open(t, dsn), catalog.Config{Generation: g})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func entries() catalog.Collection[string] { return catalog.JSON[string]("c") }

func set(c *catalog.Catalog, value string) error {
	return c.Update(context.Background(), func(tx *catalog.Tx) error { return entries().Set(tx, "k", value) })
}

// ended returns why a handle ended, once it has.
func ended(t *testing.T, done <-chan struct{}, why func() error) error {
	t.Helper()
	select {
	case <-done:
		return why()
	case <-time.After(soon):
		require.Fail(t, "it goes on")
		return nil
	}
}

func TestAFailOverThatLostNothingIsGoneThroughUnderTheSameToken(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	logged, logger := captured()
	s, err := postgres.Open(t.Context(), cl.dsn, postgres.Config{Logger: logger})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	h, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
	require.NoError(t, err)
	defer func() { require.NoError(t, h.Close()) }()
	require.NoError(t, set(h, "before"))
	cl.primary.CaughtUp(cl.standby)
	cl.failOver()
	require.NoError(t, set(h, "after"))
	require.NoError(t, h.Confirm(t.Context()))
	require.Equal(t, "1 1", stampOf(t, cl.standby.URL), "the claim was made on timeline 1")
	require.Contains(t, logged.lines(), "WARN the server was promoted, or restored, since the newest claim: unless its standby was synchronous, later claims and commits may be lost; if a process finds that, no process claims until `fencepost restored`")

	next := holder(t, cl.dsn, 2)
	require.Equal(t, "2 2", stampOf(t, cl.standby.URL))
	require.NoError(t, set(next, "next"))
	require.ErrorIs(t, ended(t, h.Done(), h.Err), fence.ErrSuperseded)
	require.Error(t, h.Close())
	h, err = catalog.Open(t.Context(), s, catalog.Config{Generation: 3})
	require.NoError(t, err)
}

// stampOf returns generation and timeline beside the token.
func stampOf(t *testing.T, server string) string {
	t.Helper()
	var generation, timeline int64
	var mine bool
	require.NoError(t, testpg.Connect(t, server).QueryRow(t.Context(), `select generation, timeline,
		system_id = (select system_identifier::text from pg_control_system()) from fencepost.token`).Scan(&generation, &timeline, &mine))
	require.True(t, mine)
	return fmt.Sprintf("%d %d", generation, timeline)
}

func TestAFailOverThatLostAClaimEndsTheHolderAndEveryoneWhoSawIt(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	first := holder(t, cl.dsn, 1)
	require.NoError(t, set(first, "kept"))
	cl.primary.CaughtUp(cl.standby)
	cl.standby.Detach()
	lost := holder(t, cl.dsn, 2)
	require.NoError(t, set(lost, "lost"))
	require.ErrorIs(t, ended(t, first.Done(), first.Err), fence.ErrSuperseded)
	f, err := catalog.Follow(t.Context(), open(t, cl.dsn), catalog.Config{Generation: 2})
	require.NoError(t, err)
	defer func() { _ = f.Close() }()

	cl.failOver()
	for _, err := range []error{
		ended(t, lost.Done(), lost.Err), set(lost, "more"), lost.Confirm(t.Context()), ended(t, f.Done(), f.Err),
	} {
		require.ErrorIs(t, err, catalog.ErrLostCommit)
		require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
		require.ErrorContains(t, err, "it bears token g1.e1, and g2.e2 was seen before")
	}

	logged, logger := captured()
	s, err := postgres.Open(t.Context(), cl.dsn, postgres.Config{Logger: logger})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	head, err := s.Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, "g1.e1", head.Claim.Token.String(), "a process that remembers nothing meets the token that is left")
	require.Len(t, logged.lines(), 1)
	require.Contains(t, logged.lines()[0], "WARN the server was promoted, or restored, since the newest claim")

	require.ErrorIs(t, lost.Close(), catalog.ErrLostCommit)
	_ = f.Close()
	found := recordedLoss(t, cl.dsn)
	require.Equal(t, []uint64{3, 4}, []uint64{found.From, found.To}, "the claim, and the commit under it")
	require.Equal(t, "g2.e2", found.Token.String())
	require.Equal(t, "g1.e1", found.Left.String())
	for g := range generation.Generation(3) {
		cantClaim(t, cl.dsn, g+1, found)
	}
	_, err = catalog.Raise(t.Context(), s, catalog.Config{}, catalog.RaiseOptions{Reason: "fail-over", Above: fence.Token{Generation: 2, Epoch: 2}})
	require.NoError(t, err)
	require.Equal(t, "g3.e4", holder(t, cl.dsn, 3).Token().String(), "no token is issued twice")
}

func TestAFailOverThatLostACommitEndsTheHolder(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	h := holder(t, cl.dsn, 1)
	require.NoError(t, set(h, "kept"))
	cl.primary.CaughtUp(cl.standby)
	cl.standby.Detach()
	require.NoError(t, set(h, "lost"))
	cl.failOver()
	err := set(h, "more")
	require.ErrorIs(t, err, catalog.ErrLostCommit)
	require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
	require.ErrorIs(t, ended(t, h.Done(), h.Err), catalog.ErrLostCommit)
	require.ErrorIs(t, h.Close(), catalog.ErrLostCommit)
	lost := recordedLoss(t, cl.dsn)
	require.Equal(t, []uint64{3, 3}, []uint64{lost.From, lost.To})
	require.Contains(t, lost.Place, "timeline 2")
	cantClaim(t, cl.dsn, 1, lost)
	require.NoError(t, catalog.DismissLoss(t.Context(), open(t, cl.dsn), catalog.Config{}, lost, "a person"))
	again := holder(t, cl.dsn, 1)
	require.NoError(t, again.View(func(r *catalog.Reader) error {
		value, _, err := entries().Get(r, "k")
		require.Equal(t, "kept", value)
		return err
	}))
}

// recordedLoss returns the one loss that is recorded.
func recordedLoss(t *testing.T, dsn string) catalog.Loss {
	t.Helper()
	losses, err := catalog.Losses(t.Context(), open(t, dsn))
	require.NoError(t, err)
	require.Len(t, losses, 1)
	require.True(t, losses[0].Stands())
	return losses[0]
}

func cantClaim(t *testing.T, dsn string, g generation.Generation, loss catalog.Loss) {
	t.Helper()
	_, err := catalog.Open(t.Context(), open(t, dsn), catalog.Config{Generation: g})
	require.ErrorIs(t, err, catalog.ErrLossStands)
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	require.ErrorContains(t, err, "`fencepost restored --above "+loss.Token.String()+"`")
	require.ErrorContains(t, err, loss.Place)
}

func TestACommitWhoseWaitForAStandbyWasCutIsNoLossBehindAFailOver(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	h, err := catalog.Open(t.Context(), open(t, cl.dsn), catalog.Config{Generation: 1, StoreTimeout: time.Second, RetryBudget: 3 * time.Second})
	require.NoError(t, err)
	defer func() { _ = h.Close() }()
	require.NoError(t, set(h, "told"))
	told := h.Head()
	cl.primary.CaughtUp(cl.standby)
	cl.standby.Detach()
	testpg.CommitsWaitFor(t, cl.primary.URL, "missing")
	fate := make(chan error, 1)
	go func() { fate <- set(h, "never told") }()
	var followers []*catalog.Follower
	for range 3 {
		f, err := catalog.Follow(t.Context(), open(t, cl.dsn), catalog.Config{Generation: 1})
		require.NoError(t, err)
		defer func() { _ = f.Close() }()
		require.NoError(t, f.Wait(within(t, soon), func(head driver.Head) bool { return head.Revision > told.Revision }), "it reads what nobody was told of")
		followers = append(followers, f)
	}
	cl.failOver()
	err = ended(t, h.Done(), h.Err)
	require.NotErrorIs(t, err, catalog.ErrLostCommit)
	require.NotEqual(t, exitcodes.Panic, exitcodes.Of(err))
	require.Error(t, <-fate)
	for _, f := range followers {
		err := ended(t, f.Done(), f.Err)
		require.NotErrorIs(t, err, catalog.ErrLostCommit)
		require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
	}
	losses, err := catalog.Losses(t.Context(), open(t, cl.dsn))
	require.NoError(t, err)
	require.Empty(t, losses)
	again := holder(t, cl.dsn, 1)
	require.Equal(t, told.Revision+1, again.Head().Revision)
}

func TestAPrimaryThatComesBackIsNotBelievedByWhoSawItsSuccessor(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	p, through := newProxy(t, cl.primary.URL)
	s := open(t, through)
	head := claim(t, s)
	cl.primary.CaughtUp(cl.standby)
	cl.failOver()
	p.server.Store(cl.standby.Address())
	rec := next(head)
	require.Eventually(t, func() bool { return s.Append(within(t, soon), head, rec) == nil }, soon, often)

	cl.primary.Start() // on timeline 1, with the head of before
	p.server.Store(cl.primary.Address())
	cl.standby.Stop() // its connections break
	require.Eventually(t, func() bool {
		_, err := s.Head(within(t, soon))
		return olderTimeline(t, err)
	}, soon, often)
	require.True(t, olderTimeline(t, s.Append(within(t, soon), head, next(head))))
	kept, err := open(t, cl.primary.URL).Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, head, kept, "nothing was written there")
}

func olderTimeline(t *testing.T, err error) bool {
	t.Helper()
	fails(t, err, exitcodes.Retry, driver.NotApplied)
	return strings.Contains(err.Error(), "older timeline than one already seen: 1, seen was 2")
}

func TestACommitNeverLandsOnAPrimaryThatGoesOnBesideItsSuccessor(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	p, through := newProxy(t, cl.primary.URL)
	config, err := pgxpool.ParseConfig(through)
	require.NoError(t, err)
	postgres.Prepare(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config) // which is not the driver's to reset
	require.NoError(t, err)
	defer pool.Close()
	s, err := postgres.Open(t.Context(), through, postgres.Config{Pool: pool})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	head := claim(t, s)
	rec := next(head)
	require.NoError(t, s.Append(within(t, soon), head, rec))
	head = head.After(rec)
	endNotifier(t, cl.primary.URL) // so that Head dials anew
	cl.primary.CaughtUp(cl.standby)
	cl.standby.Detach()
	cl.standby.Promote() // and nobody told the primary, to which the pool has a connection
	p.server.Store(cl.standby.Address())
	seen, err := s.Head(within(t, soon))
	require.NoError(t, err)
	require.Equal(t, head, seen)

	rec = next(head)
	require.NoError(t, s.Append(within(t, soon), head, rec), "the connection is not used any more, and the next one leads to the successor")
	for server, want := range map[string]driver.Head{cl.primary.URL: head, cl.standby.URL: head.After(rec)} {
		got, err := open(t, server).Head(within(t, soon))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// endNotifier ends the connection for liveness over which a claim was announced.
func endNotifier(t *testing.T, server string) {
	t.Helper()
	look := testpg.Connect(t, server)
	require.Eventually(t, func() bool {
		tag, err := look.Exec(t.Context(), `select pg_terminate_backend(pid) from pg_stat_activity
			where state = 'idle' and query like '%pg_notify%' and pid <> pg_backend_pid()`)
		return err == nil && tag.RowsAffected() == 1
	}, soon, often)
}

// capture keeps what is logged.
type capture struct {
	mu   sync.Mutex
	seen []string
}

func captured() (*capture, *slog.Logger) {
	c := &capture{}
	return c, slog.New(c)
}

func (c *capture) lines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen)
}

func (c *capture) Enabled(context.Context, slog.Level) bool { return true }
func (c *capture) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *capture) WithGroup(string) slog.Handler            { return c }

func (c *capture) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, r.Level.String()+" "+r.Message)
	return nil
}
