package pgwork

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/work"
)

// Enqueued is a job that was asked for. It becomes a job once the transaction has
// committed and the holder has read its inbox.
type Enqueued struct {
	// Ref names the request: work.ReplyTo says what became of it, and the job bears
	// it as work.Info.Ref.
	Ref string

	catalog string
}

// An Option changes how [EnqueueTx] works.
type Option func(*options)

type options struct{ ordered bool }

// Unordered takes no lock of the key: nobody waits, and jobs of the same key from
// transactions that run at the same time become jobs in any order.
func Unordered() Option { return func(o *options) { o.ordered = false } }

const enqueueSQL = `select fencepost.enqueue($1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text, $4::pg_catalog.bytea,
	$5::pg_catalog.timestamptz, $6::pg_catalog.int4, $7::pg_catalog.int8, $8::pg_catalog.text, $9::pg_catalog.bool)`

// EnqueueTx puts a request for a job into the inbox of a catalog, inside the caller's
// transaction, by one round trip. Call Wake on what it returns once tx has committed.
//
// An error wraps work.ErrInvalid or work.ErrTooLarge if r is at fault: then nothing was
// sent, and tx goes on. After [ErrUnclaimed], [ErrManyKeys], [ErrNotInstalled],
// [ErrNoRight] and [ErrReadOnly], and after any other error, tx can only be rolled
// back, or go on from a savepoint. What the holder's kind forbids, by MaxPayload, is
// found when the holder reads the request, which then goes to the dead list.
func EnqueueTx(ctx context.Context, tx pgx.Tx, catalog string, r work.Request, opts ...Option) (Enqueued, error) {
	all, err := EnqueueAllTx(ctx, tx, catalog, []work.Request{r}, opts...)
	if err != nil {
		return Enqueued{}, err
	}
	return all[0], nil
}

// EnqueueAllTx does the same for several jobs, by one round trip. They become jobs in
// their order.
func EnqueueAllTx(ctx context.Context, tx pgx.Tx, catalog string, requests []work.Request, opts ...Option) ([]Enqueued, error) {
	o := options{ordered: true}
	for _, opt := range opts {
		opt(&o)
	}
	for i, r := range requests {
		if err := r.Check(); err != nil {
			return nil, fmt.Errorf("pgwork: enqueue: request %d of %d: %w", i+1, len(requests), err)
		}
	}
	all := make([]Enqueued, len(requests))
	var b pgx.Batch
	for i, r := range requests {
		all[i].catalog = catalog
		b.Queue(enqueueSQL, arguments(catalog, r, o)...).QueryRow(func(row pgx.Row) error { return row.Scan(&all[i].Ref) })
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return nil, fmt.Errorf("pgwork: enqueue: %w", explained(err))
	}
	return all, nil
}

func arguments(catalog string, r work.Request, o options) []any {
	var due *time.Time
	if !r.RunAt.IsZero() {
		due = &r.RunAt
	}
	var pinned *int64
	if r.Generation != generation.None {
		g := int64(min(r.Generation, math.MaxInt64))
		pinned = &g
	}
	return []any{catalog, r.Kind, r.Key, r.Payload, due, r.Priority, pinned, r.Member, o.ordered}
}

// wakeTimeout bounds a wake-up. By its end the holder's poll has found the request.
const wakeTimeout = time.Second

// An Execer runs statements, as *pgxpool.Pool and *pgx.Conn do.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// ErrInside means that a wake-up was to be sent inside a transaction. Nothing was
// sent.
var ErrInside = errors.New("a wake-up belongs behind the commit, on a pool or a connection")

// Wake has the holder read its inbox at once, by a statement of its own on a pool or
// a connection, through a pooler too. It is called once the transaction has
// committed, once for all jobs of a transaction. It takes a second at most.
//
// An error means that the wake-up may be lost, and nothing else: the holder's poll
// finds the request. So it is there to be logged.
func (e Enqueued) Wake(ctx context.Context, on Execer) error {
	if _, inside := on.(pgx.Tx); inside {
		return fmt.Errorf("pgwork: wake: %w", ErrInside)
	}
	ctx, cancel := context.WithTimeout(ctx, wakeTimeout)
	defer cancel()
	// One message: no statement is prepared on one connection of a pooler and run on another.
	if _, err := on.Exec(ctx, `select fencepost.wake($1::pg_catalog.text)`, pgx.QueryExecModeExec, e.catalog); err != nil {
		return fmt.Errorf("pgwork: wake: %w", explained(err))
	}
	return nil
}
