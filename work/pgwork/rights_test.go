package pgwork_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/testpg"
	"github.com/fencepost/fencepost/work"
	"github.com/fencepost/fencepost/work/pgwork"
)

// role makes a role that may do nothing, and returns its name and its URL.
func (p *place) role() (name, dsn string) {
	p.Helper()
	id := driver.NewID()
	name = `web "` + id.String()
	quoted := pgx.Identifier{name}.Sanitize()
	testpg.Exec(p, p.dsn, "create role "+quoted+" login password 'pw'")
	p.Cleanup(func() { testpg.Exec(p, p.dsn, "drop owned by "+quoted+"; drop role "+quoted) })
	return name, testpg.With(p, p.dsn, func(u *url.URL) { u.User = url.UserPassword(name, "pw") })
}

func TestARoleThatWasNamedEnqueuesAndWakesAndDoesNothingElseToTheCatalog(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	h := p.hold(2, p.store(), time.Hour)
	name, dsn := p.role()
	require.NoError(t, pgwork.Install(t.Context(), p.pool, name))
	p.pool = p.connect(dsn)
	e := p.enqueue(work.Request{Kind: "sync", Key: "k", Payload: []byte("a")})
	require.NoError(t, e.Wake(t.Context(), p.pool))
	h.does("a")
	require.NoError(t, pgwork.Install(t.Context(), p.pool, name), "there is nothing to do, which takes no right")
	for _, sql := range []string{
		`insert into fencepost.board values ('main', 'intent', '{}', 1)`, `select * from fencepost.board`, `delete from fencepost.board`, `select * from fencepost.token`,
		`select nextval('fencepost.enqueued')`, `select setval('fencepost.enqueued', 1)`, `create or replace function fencepost.wake(text) returns void language sql as ''`,
	} {
		_, err := p.pool.Exec(t.Context(), sql)
		require.ErrorContains(t, err, "SQLSTATE 42501", sql)
	}
}

func TestWhatAnOperatorHasToDoIsSaid(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	enqueue := func(dsn string, options pgx.TxOptions) error {
		pool := p.connect(dsn)
		return pgx.BeginTxFunc(t.Context(), pool, options, func(tx pgx.Tx) error {
			_, err := pgwork.EnqueueTx(t.Context(), tx, "main", job("a"))
			return err
		})
	}
	name, dsn := p.role()
	none := testpg.URL(t)
	require.NoError(t, enqueue(p.dsn, pgx.TxOptions{}))
	err := enqueue(dsn, pgx.TxOptions{})
	require.ErrorIs(t, err, pgwork.ErrNoRight)
	require.ErrorContains(t, err, "grant usage on schema fencepost")
	testpg.Exec(t, p.dsn, "grant usage on schema fencepost to "+pgx.Identifier{name}.Sanitize())
	err = enqueue(dsn, pgx.TxOptions{})
	require.ErrorIs(t, err, pgwork.ErrNoRight, "everybody may call a function unless that is revoked")
	err = enqueue(p.dsn, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	require.ErrorIs(t, err, pgwork.ErrReadOnly)
	require.ErrorContains(t, err, "primary")
	err = enqueue(none, pgx.TxOptions{})
	require.ErrorIs(t, err, pgwork.ErrNotInstalled)
	require.ErrorContains(t, err, "pgwork.Install")

	err = pgwork.Install(t.Context(), p.connect(none))
	require.ErrorIs(t, err, pgwork.ErrNotInstalled)
	require.ErrorContains(t, err, "claim the catalog first")
	err = pgwork.Install(t.Context(), p.connect(dsn), name)
	require.ErrorIs(t, err, pgwork.ErrNoRight)
	require.ErrorContains(t, err, "owner of schema fencepost")
	testpg.Exec(t, p.dsn, pgwork.Schema(name), pgwork.Schema(name))
	require.NoError(t, enqueue(dsn, pgx.TxOptions{}), "an operator has run the statements, twice")
}

// A late Beginner is one whose transactions wait before they commit.
type late struct {
	pgwork.Beginner
	wait func()
}

func (l late) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	tx, err := l.Beginner.BeginTx(ctx, options)
	return lateTx{tx, l.wait}, err
}

type lateTx struct {
	pgx.Tx
	wait func()
}

func (tx lateTx) Commit(ctx context.Context) error {
	tx.wait()
	return tx.Tx.Commit(ctx)
}

func TestTwoThatInstallAtOnceBothSucceed(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	testpg.Exec(t, p.dsn, `drop function fencepost.enqueue, fencepost.wake; drop sequence fencepost.enqueued`)
	done := make(chan error, 1)
	first := late{p.pool, func() {
		go func() { done <- pgwork.Install(context.WithoutCancel(t.Context()), p.pool) }()
		require.Eventually(t, func() bool { return testpg.Waiting(p.dsn) != 0 }, soon, often)
	}}
	require.NoError(t, pgwork.Install(t.Context(), first))
	require.NoError(t, <-done)
}

// enqueueBySQL does what a client in another language does.
func (p *place) enqueueBySQL(r work.Request, due *time.Time) error {
	_, err := p.pool.Exec(p.Context(), `select fencepost.enqueue('main', $1, $2, $3, run_at => $4, priority => $5, member => $6)`,
		r.Kind, r.Key, r.Payload, due, r.Priority, r.Member)
	return err
}

func TestTheFunctionRefusesWhatEnqueueTxDoesAndAcceptsTheRest(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	long := func(n int) string { return strings.Repeat("ä", n/2) }
	requests := []work.Request{
		{Kind: ""}, {Kind: "a"}, {Kind: long(work.MaxName)}, {Kind: long(work.MaxName) + "a"}, {Kind: "a\nb"}, {Kind: "a\x7f"}, {Kind: "日本 x"}, {Kind: "'; drop table x; --"},
		{Kind: "a", Key: long(work.MaxKey)}, {Kind: "a", Key: long(work.MaxKey) + "a"}, {Kind: "a", Key: "k\n\t\x01\"\\'\u2028"},
		{Kind: "a", Payload: make([]byte, work.MaxPayload)}, {Kind: "a", Payload: make([]byte, work.MaxPayload+1)}, {Kind: "a", Payload: []byte{}},
		{Kind: "a", Priority: work.MaxPriority}, {Kind: "a", Priority: work.MaxPriority + 1}, {Kind: "a", Priority: -work.MaxPriority}, {Kind: "a", Priority: -work.MaxPriority - 1}, {Kind: "a", Priority: -1 << 31},
		{Kind: "a", Member: long(work.MaxName)}, {Kind: "a", Member: long(work.MaxName) + "a"}, {Kind: "a", Member: "m\n"},
		{Kind: "a", RunAt: time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC)}, {Kind: "a", RunAt: time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)}, {Kind: "a", RunAt: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}, {Kind: "a", RunAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
	}
	var accepted []work.Request
	for i, r := range requests {
		var due *time.Time
		if !r.RunAt.IsZero() {
			due = &r.RunAt
		}
		want, err := r.Check(), p.enqueueBySQL(r, due)
		if want == nil {
			accepted = append(accepted, r)
		}
		require.Equal(t, want == nil, err == nil, "%d: %v, %v", i, want, err)
		if err != nil {
			var answer *pgconn.PgError
			require.ErrorAs(t, err, &answer)
			require.Contains(t, []string{"WRK01", "WRK02"}, answer.Code)
			require.NotEmpty(t, answer.Hint)
			require.Less(t, len(answer.Message), 500)
		}
	}
	for _, sql := range []string{`'nowhere', 'a'`, `'Main', 'a'`, `'', 'a'`, `null, 'a'`, `'register:main', 'a'`, `'main''', 'a'`, `'` + strings.Repeat("m", 64) + `', 'a'`,
		`'main', null`, `'main', 'a', generation => 0`, `'main', 'a', run_at => 'infinity'`, `'main', 'a', run_at => '-infinity'`, `'main', 'a', priority => null, generation => -1`} {
		_, err := p.pool.Exec(t.Context(), `select fencepost.enqueue(`+sql+`)`)
		require.ErrorContains(t, err, "SQLSTATE WRK0", sql)
	}
	for _, sql := range []string{`'main', 'a'`, `'main', 'a', null, null, null, null, null, null, null`} {
		_, err := p.pool.Exec(t.Context(), `select fencepost.enqueue(`+sql+`)`)
		require.NoError(t, err, sql)
	}
	require.Len(t, p.inbox(), len(accepted)+2)
	h := p.hold(2, p.store(), time.Hour) // it knows no kind "a", and keeps them all
	h.empties()
	for i, r := range accepted {
		info := h.find(work.ID(i + 1))
		require.Equal(t, []any{r.Kind, r.Key, r.Priority, len(r.Payload)}, []any{info.Kind, info.Key, info.Priority, info.Size}, fmt.Sprint(i))
		require.Equal(t, work.Unknown, info.State, "none is on the dead list")
	}
}

func TestAKindThatOnlyTheHolderCanTellToBeInvalidGoesToTheDeadListAndIsAnswered(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	h := p.hold(2, p.store(), 20*time.Millisecond)
	for _, kind := range []string{"a\u00a0b", "a\u200bb", "\u2028"} {
		require.ErrorIs(t, work.Request{Kind: kind}.Check(), work.ErrInvalid)
		var ref string
		require.NoError(t, p.pool.QueryRow(t.Context(), `select fencepost.enqueue('main', $1)`, kind).Scan(&ref))
		h.empties()
		reply := h.reply(ref)
		require.Contains(t, reply.Error, "dead list", kind)
		require.Equal(t, work.Malformed, h.find(reply.ID).Reason)
	}
}
