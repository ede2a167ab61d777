package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
)

type postgresBackend struct{ dsn string }

func newPostgres() (backend, error) {
	dsn := os.Getenv("FENCEPOST_TEST_POSTGRES")
	if dsn == "" {
		return nil, errors.New("FENCEPOST_TEST_POSTGRES is not set: use make bench")
	}
	if u, err := url.Parse(dsn); err != nil || u.RawQuery == "" {
		return nil, errors.New("FENCEPOST_TEST_POSTGRES is no URL with parameters: use make bench")
	}
	return &postgresBackend{dsn}, nil
}

func (b *postgresBackend) name() string { return "postgres" }

func (b *postgresBackend) open(ctx context.Context, catalog string) (driver.Store, error) {
	return postgres.Open(ctx, b.url(catalog), postgres.Config{})
}

func (b *postgresBackend) url(catalog string) string {
	return b.dsn + "&catalog=" + url.QueryEscape(catalog)
}

// syncs returns how often the server has synced its WAL. A connection's process
// reports that at the end of a transaction, and at most once a second.
func (b *postgresBackend) syncs(ctx context.Context, _ string, nudge func() error) (n int64, err error) {
	time.Sleep(1200 * time.Millisecond)
	if err := nudge(); err != nil {
		return 0, err
	}
	conn, err := pgx.Connect(ctx, b.dsn)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is lost with it
	sql := `select wal_sync from pg_stat_wal`
	var version int
	if err := conn.QueryRow(ctx, `select current_setting('server_version_num')::int`).Scan(&version); err != nil {
		return 0, err
	}
	if version >= 180000 { // which counts them elsewhere
		sql = `select sum(fsyncs)::bigint from pg_stat_io where object = 'wal'`
	}
	return n, conn.QueryRow(ctx, sql).Scan(&n)
}

func (b *postgresBackend) close() {}

type postgresRaw struct {
	conns         []*pgx.Conn
	set, get, all string
	table         string
}

func (b *postgresBackend) raw(ctx context.Context, table string) (raw, error) {
	r := &postgresRaw{table: table}
	r.set = fmt.Sprintf(`update %q set v = $1 where k = $2`, table)
	r.get = fmt.Sprintf(`select v from %q where k = $1`, table)
	r.all = fmt.Sprintf(`select k, v from %q`, table)
	for range workers {
		conn, err := pgx.Connect(ctx, b.dsn)
		if err != nil {
			return nil, err
		}
		r.conns = append(r.conns, conn)
	}
	return r, errors.Join(r.create(ctx), r.prepare(ctx))
}

// create makes the table, with room on its pages for the rows' next versions,
// as our head has.
func (r *postgresRaw) create(ctx context.Context) error {
	if _, err := r.conns[0].Exec(ctx, fmt.Sprintf(`create table %q (k text collate "C" primary key, v bytea not null) with (fillfactor = 50)`, r.table)); err != nil {
		return err
	}
	return r.insert(ctx, 0, workers, func(i int) int { return i })
}

func (r *postgresRaw) prepare(ctx context.Context) error {
	for _, conn := range r.conns {
		_, err1 := conn.Prepare(ctx, r.set, r.set)
		_, err2 := conn.Prepare(ctx, r.get, r.get)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
	}
	return nil
}

func (r *postgresRaw) insert(ctx context.Context, first, n int, number func(int) int) error {
	rows := pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		return []any{key(first + i), value(uint64(number(i)))}, nil
	})
	_, err := r.conns[0].CopyFrom(ctx, pgx.Identifier{r.table}, []string{"k", "v"}, rows)
	return err
}

func (r *postgresRaw) write(ctx context.Context, worker int, value []byte) error {
	tag, err := r.conns[worker].Exec(ctx, r.set, value, key(worker))
	if err == nil && tag.RowsAffected() != 1 {
		err = fmt.Errorf("%d rows were written, want 1", tag.RowsAffected())
	}
	return err
}

func (r *postgresRaw) read(ctx context.Context, worker int) error {
	var v []byte
	return r.conns[worker].QueryRow(ctx, r.get, key(worker)).Scan(&v)
}

func (r *postgresRaw) fill(ctx context.Context, n int) error {
	return r.insert(ctx, workers, n, func(i int) int { return i })
}

func (r *postgresRaw) scan(ctx context.Context) (n int, err error) {
	rows, err := r.conns[0].Query(ctx, r.all)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		var k string
		var v []byte
		if err := rows.Scan(&k, &v); err != nil {
			return n, err
		}
	}
	return n, rows.Err()
}

func (r *postgresRaw) close() {
	ctx := context.Background()
	_, _ = r.conns[0].Exec(ctx, fmt.Sprintf(`drop table %q`, r.table)) // the server is temporary
	for _, conn := range r.conns {
		_ = conn.Close(ctx)
	}
}
