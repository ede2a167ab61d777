package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/reap"
)

// schemas are the schemas of the generations, such as orders_g7. When one was made stands
// in its comment, by the clock of the server.
type schemas struct {
	conn   *pgx.Conn
	prefix string // such as orders_
}

// make makes the schema of a generation, unless it is there.
func (s schemas) make(ctx context.Context, token fence.Token) error {
	name := s.prefix + nameOf(token.Generation)
	return pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		var there bool
		err := tx.QueryRow(ctx, `select exists (select from pg_namespace where nspname = $1)`, name).Scan(&there)
		if err != nil || there {
			return err
		}
		var comment string
		err = tx.QueryRow(ctx, `select format('comment on schema %I is %L', $1::text, to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))`, name).Scan(&comment)
		if err == nil {
			_, err = tx.Exec(ctx, `create schema `+pgx.Identifier{name}.Sanitize()+`; `+comment)
		}
		if err == nil {
			_, err = tx.Exec(ctx, `create table `+pgx.Identifier{name, "orders"}.Sanitize()+` (id bigint primary key)`)
		}
		return err
	})
}

func (s schemas) source() reap.Source {
	return reap.Source{List: s.list, Delete: s.delete}
}

func (s schemas) list(ctx context.Context) (items []reap.Item, err error) {
	rows, err := s.conn.Query(ctx, `select nspname, coalesce(obj_description(oid, 'pg_namespace'), '') from pg_namespace where starts_with(nspname, $1)`, s.prefix)
	if err != nil {
		return nil, err
	}
	var name, made string
	_, err = pgx.ForEachRow(rows, []any{&name, &made}, func() error {
		if g, ok := generationOf(strings.TrimPrefix(name, s.prefix)); ok {
			at, _ := time.Parse(time.RFC3339, made) // zero if somebody has replaced the comment: the schema then stays
			items = append(items, reap.Item{ID: name, Made: fence.Token{Generation: g}, At: at})
		}
		return nil
	})
	return items, err
}

// delete drops a schema and its tables. Reapers of one schema take turns by a lock, so that
// the second one is told that it is gone, and by no other error. Nothing cascades: a table
// that is still read makes it fail, and so does a view or key of another schema, such as
// that of a newer generation, which a cascade would drop.
func (s schemas) delete(ctx context.Context, item reap.Item) error {
	err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `set local lock_timeout = '2s'`); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended('reap ' || $1, 0))`, item.ID); err != nil {
			return err
		}
		var tables string
		err := tx.QueryRow(ctx, `select coalesce('drop table ' || string_agg(format('%I.%I', schemaname, tablename), ', '), '') from pg_tables where schemaname = $1`, item.ID).Scan(&tables)
		if err == nil && tables != "" {
			_, err = tx.Exec(ctx, tables)
		}
		if err == nil {
			_, err = tx.Exec(ctx, `drop schema `+pgx.Identifier{item.ID}.Sanitize())
		}
		return err
	})
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "3F000" { // invalid_schema_name
		return fmt.Errorf("%w: %w", reap.ErrGone, err)
	}
	return err
}
