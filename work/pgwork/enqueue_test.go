package pgwork_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/testpg"
	"github.com/fencepost/fencepost/work"
	"github.com/fencepost/fencepost/work/pgwork"
)

func TestARequestIsInTheInboxIfAndOnlyIfItsTransactionHasCommitted(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	ctx := t.Context()
	tx := p.begin()
	_, err := pgwork.EnqueueTx(ctx, tx, "main", job("rolled back"))
	require.NoError(t, err)
	require.Empty(t, p.inbox(), "not before the commit")
	require.NoError(t, tx.Rollback(ctx))

	var kept pgwork.Enqueued
	p.inTx(func(tx pgx.Tx) {
		inner, err := tx.Begin(ctx) // a savepoint
		require.NoError(t, err)
		_, err = pgwork.EnqueueTx(ctx, inner, "main", job("of a savepoint"))
		require.NoError(t, err)
		require.NoError(t, inner.Rollback(ctx))
		inner, err = tx.Begin(ctx)
		require.NoError(t, err)
		_, err = pgwork.EnqueueTx(ctx, inner, "nowhere", job("refused"))
		require.ErrorIs(t, err, pgwork.ErrUnclaimed)
		require.NoError(t, inner.Rollback(ctx))
		_, err = pgwork.EnqueueTx(ctx, tx, "main", work.Request{})
		require.ErrorIs(t, err, work.ErrInvalid, "nothing was sent, and the transaction goes on")
		kept, err = pgwork.EnqueueTx(ctx, tx, "main", job("kept"))
		require.NoError(t, err)
	})
	require.Equal(t, []string{kept.Ref}, p.inbox())
	h := p.hold(2, p.store(), 20*time.Millisecond)
	h.does("kept")
	require.EqualValues(t, 1, h.reply(kept.Ref).ID)
	h.empties()
}

func TestAWakeHasTheHolderTakeARequestAtOnceAndWithoutOneThePollDoes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"main", strings.Repeat("long-name", 7)} { // its channel has another name
		p := newPlaceIn(t, testpg.URL(t), name)
		h := p.hold(2, p.store(), time.Hour)
		require.NoError(t, p.enqueue(job("a")).Wake(t.Context(), p.pool))
		h.does("a")
		lost := p.enqueue(job("b"))
		require.NoError(t, p.enqueue(job("c")).Wake(t.Context(), p.pool))
		h.does("a", "b", "c")
		require.EqualValues(t, 2, h.reply(lost.Ref).ID, "one wake-up stands for all")
	}
	p := newPlace(t)
	h := p.hold(2, p.store(), 20*time.Millisecond)
	web := testpg.Connect(t, p.dsn)
	tx, err := web.Begin(t.Context())
	require.NoError(t, err)
	e, err := pgwork.EnqueueTx(t.Context(), tx, "main", job("a"))
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, web.PgConn().Conn().Close(), "the web server dies between commit and wake")
	h.does("a")
	require.Error(t, e.Wake(t.Context(), web), "a lost wake-up is an error, and nothing is lost")
	h.empties()
}

func TestAWakeIsNotSentInsideATransaction(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	tx := p.begin()
	e, err := pgwork.EnqueueTx(t.Context(), tx, "main", job("a"))
	require.NoError(t, err)
	require.ErrorIs(t, e.Wake(t.Context(), tx), pgwork.ErrInside)
	_, err = tx.Exec(t.Context(), `select 1`)
	require.NoError(t, err, "nothing was sent")
	err = e.Wake(t.Context(), tx.Conn())
	require.ErrorIs(t, err, pgwork.ErrInside, "the server knows, too")
	require.ErrorContains(t, err, "behind the commit")
}

func TestThroughAPoolerRequestsAreEnqueuedAndFoundByThePoll(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	pooler := testpg.NewPooler(t, p.dsn, 5)
	h := p.hold(2, p.storeAt(pooler.URL), 20*time.Millisecond)
	var want []string
	for _, mode := range []string{"exec", "simple_protocol", "cache_describe", "describe_exec"} {
		p.pool = p.connect(pooler.URL + "&default_query_exec_mode=" + mode)
		e := p.enqueue(work.Request{Kind: "sync", Key: "k'\\ \u00e4", Payload: []byte(mode), RunAt: time.Unix(1, 0), Priority: -7})
		require.NoError(t, e.Wake(t.Context(), p.pool), mode)
		want = append(want, mode)
		h.does(want...)
	}
}

// TestTheRequestsOfAKeyBecomeJobsInTheOrderOfTheirCommits plays web servers that enqueue a job and then count up a row, each
// in one transaction.
func TestTheRequestsOfAKeyBecomeJobsInTheOrderOfTheirCommits(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	testpg.Exec(t, p.dsn, `create table public.counter (n bigint); insert into public.counter values (0);
		create table public.refs (n bigint, ref text)`)
	var servers sync.WaitGroup
	for range 6 {
		servers.Go(func() {
			for range 15 {
				err := pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error {
					e, err := pgwork.EnqueueTx(t.Context(), tx, "main", work.Request{Kind: "sync", Key: "k"})
					if err != nil {
						return err
					}
					if rand.N(3) == 0 {
						if _, err := tx.Exec(t.Context(), `select pg_catalog.pg_sleep(0.001)`); err != nil {
							return err
						}
					}
					_, err = tx.Exec(t.Context(), `with up as (update public.counter set n = n + 1 returning n) insert into public.refs select n, $1 from up`, e.Ref)
					return err
				})
				require.NoError(t, err)
			}
		})
	}
	servers.Wait()
	rows, err := p.pool.Query(t.Context(), `select ref from public.refs order by n`)
	require.NoError(t, err)
	committed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, committed, p.inbox())
}

func TestOnlyTheSameKeyOfTheSameKindWaitsAndNoneThatIsUnordered(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	tx := p.begin()
	first, err := pgwork.EnqueueTx(t.Context(), tx, "main", work.Request{Kind: "sync", Key: "k"})
	require.NoError(t, err)
	p.enqueue(work.Request{Kind: "sync", Key: "other"})
	p.enqueue(work.Request{Kind: "other", Key: "k"})
	p.enqueue(work.Request{Kind: "sync"})
	p.enqueue(work.Request{Kind: "sync", Key: "k"}, pgwork.Unordered())
	waited := make(chan pgwork.Enqueued, 1)
	go func() { waited <- p.enqueue(work.Request{Kind: "sync", Key: "k"}) }()
	require.Eventually(t, func() bool { return testpg.Waiting(p.dsn) != 0 }, soon, often)
	require.NoError(t, tx.Commit(t.Context()))
	require.Less(t, first.Ref, (<-waited).Ref)
}

func TestATransactionLocksNoMoreThanSoManyKeys(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	many := make([]work.Request, 257)
	for i := range many {
		many[i] = work.Request{Kind: "sync", Key: fmt.Sprint(i)}
	}
	err := pgx.BeginFunc(t.Context(), p.pool, func(tx pgx.Tx) error {
		_, err := pgwork.EnqueueAllTx(t.Context(), tx, "main", many)
		return err
	})
	require.ErrorIs(t, err, pgwork.ErrManyKeys)
	require.ErrorContains(t, err, "ordered => false")
	require.Empty(t, p.inbox())
	for _, opts := range [][]pgwork.Option{{pgwork.Unordered()}, nil} {
		p.inTx(func(tx pgx.Tx) {
			all, err := pgwork.EnqueueAllTx(t.Context(), tx, "main", many[len(opts)^1:], opts...)
			require.NoError(t, err)
			require.Len(t, all, 256+len(opts))
		})
	}
	require.Len(t, p.inbox(), 513)
}

// A keeper is a store that removes no note.
type keeper struct{ *postgres.Store }

func (keeper) RemoveNotes(context.Context, []driver.Note) error { return errors.New("it is kept") }

func TestWhatBlueHasTakenAndCouldNotRemoveIsNoSecondJobOfGreen(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	blue := p.hold(2, keeper{p.store()}, 20*time.Millisecond)
	e := p.enqueue(job("a"))
	blue.does("a")
	require.Len(t, p.inbox(), 1)
	green := p.hold(3, p.store(), 20*time.Millisecond)
	require.Error(t, <-blue.done, "superseded")
	blue.done <- nil
	green.empties()
	p.enqueue(job("b"))
	green.does("b")
	require.Equal(t, []string{"a"}, blue.runs())
	require.EqualValues(t, 1, green.reply(e.Ref).ID)
}
