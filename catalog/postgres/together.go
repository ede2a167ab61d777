package postgres

import (
	"cmp"
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// hexBytes is true, and has the statement it stands in answer bytes as hexadecimal
// digits if they are answered as text, which they are behind a pooler. A role or a
// database may be set to bytea_output = escape, which pgx does not read.
const hexBytes = `(select pg_catalog.set_config('bytea_output', 'hex', true)) = 'hex'`

// A statement is one of several that are sent together. At most one of its
// functions is set; it takes what the statement answered, and its error ends
// them all: no later answer is looked at.
type statement struct {
	sql  string
	args []any

	tag  func(pgconn.CommandTag) error
	row  func(pgx.Row) error
	rows func(pgx.Rows) error
}

// A batcher is a querier that can send several statements by one round trip.
type batcher interface {
	querier
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// together sends statements in order, by one round trip: each is executed as if
// it were alone, with a look of its own at the data, and none behind one that
// failed. Behind a pooler, where a batch would need the session's statements,
// they are sent one by one.
func (l *links) together(ctx context.Context, q batcher, all ...statement) error {
	if len(all) == 1 || l.unprepared.Load() {
		return l.inTurn(ctx, q, all)
	}
	var b pgx.Batch
	var first error // what pgx is told makes it forget the statements, which are sound
	for _, s := range all {
		queued := b.Queue(s.sql, s.args...)
		switch {
		case s.tag != nil:
			queued.Exec(func(tag pgconn.CommandTag) error {
				if first == nil {
					first = s.tag(tag)
				}
				return nil
			})
		case s.row != nil:
			queued.Query(func(rows pgx.Rows) error {
				if first == nil {
					first = s.row(oneRow{rows})
				}
				return nil
			})
		case s.rows != nil:
			queued.Query(func(rows pgx.Rows) error {
				if first == nil {
					first = s.rows(rows)
				}
				return nil
			})
		}
	}
	err := q.SendBatch(ctx, &b).Close()
	return cmp.Or(first, err)
}

// oneRow is the first row of several, as a pgx.Row.
type oneRow struct{ rows pgx.Rows }

// Scan implements [pgx.Row].
func (r oneRow) Scan(dest ...any) error {
	defer r.rows.Close()
	if !r.rows.Next() {
		return cmp.Or(r.rows.Err(), pgx.ErrNoRows)
	}
	return r.rows.Scan(dest...)
}

func (l *links) inTurn(ctx context.Context, q querier, all []statement) error {
	for _, s := range all {
		if err := l.alone(ctx, q, s); err != nil {
			return err
		}
	}
	return nil
}

func (l *links) alone(ctx context.Context, q querier, s statement) error {
	args := l.args(s.args...)
	switch {
	case s.row != nil:
		return s.row(q.QueryRow(ctx, s.sql, args...))
	case s.rows != nil:
		rows, err := q.Query(ctx, s.sql, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		if err := s.rows(rows); err != nil {
			return err
		}
		rows.Close()
		return rows.Err()
	}
	tag, err := q.Exec(ctx, s.sql, args...)
	if err == nil && s.tag != nil {
		err = s.tag(tag)
	}
	return err
}
