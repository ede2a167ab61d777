package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/sqlite"
)

type sqliteBackend struct{ dir string }

func newSQLite(dir string) (backend, error) {
	dir, err := os.MkdirTemp(dir, "fencepost-bench")
	return &sqliteBackend{dir}, err
}

func (b *sqliteBackend) name() string { return "sqlite" }

func (b *sqliteBackend) path(name string) string { return filepath.Join(b.dir, name+".db") }

func (b *sqliteBackend) open(_ context.Context, catalog string) (driver.Store, error) {
	return sqlite.Open(b.path(catalog), sqlite.Config{})
}

func (b *sqliteBackend) url(catalog string) string { return "sqlite:" + b.path(catalog) }

// syncs returns the pages in the WAL. It grows with each commit until the first
// checkpoint; a commit that changes no byte would not let it grow.
func (b *sqliteBackend) syncs(_ context.Context, catalog string, _ func() error) (int64, error) {
	const page = 4096 + 24
	info, err := os.Stat(b.path(catalog) + "-wal")
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size() / page, nil
}

func (b *sqliteBackend) close() { _ = os.RemoveAll(b.dir) } // a temporary folder

// sqliteRaw is one connection, which the workers share.
type sqliteRaw struct {
	mu          sync.Mutex
	db          *sql.DB
	conn        *sql.Conn
	set, get    *sql.Stmt
	insert, all *sql.Stmt
}

func (b *sqliteBackend) raw(ctx context.Context, table string) (_ raw, err error) {
	r := new(sqliteRaw)
	if r.db, err = sql.Open("sqlite", "file:"+b.path(table)+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"); err != nil {
		return nil, err
	}
	r.db.SetMaxOpenConns(1)
	if r.conn, err = r.db.Conn(ctx); err != nil {
		return nil, err
	}
	if _, err = r.conn.ExecContext(ctx, `CREATE TABLE raw (k TEXT PRIMARY KEY, v BLOB NOT NULL) STRICT, WITHOUT ROWID`); err != nil {
		return nil, err
	}
	return r, errors.Join(r.checkSettings(ctx), r.prepare(ctx))
}

// checkSettings makes sure that every commit is synced.
func (r *sqliteRaw) checkSettings(ctx context.Context) error {
	var mode string
	var sync int
	err := r.conn.QueryRowContext(ctx, `SELECT j.journal_mode, s.synchronous FROM pragma_journal_mode j, pragma_synchronous s`).Scan(&mode, &sync)
	if err == nil && (mode != "wal" || sync != 2) {
		err = fmt.Errorf("journal_mode is %s, synchronous is %d, want wal and 2", mode, sync)
	}
	return err
}

func (r *sqliteRaw) prepare(ctx context.Context) error {
	for w := range workers {
		if _, err := r.conn.ExecContext(ctx, `INSERT INTO raw (k, v) VALUES (?, ?)`, key(w), value(uint64(w))); err != nil {
			return err
		}
	}
	var errs [4]error
	r.set, errs[0] = r.conn.PrepareContext(ctx, `UPDATE raw SET v = ? WHERE k = ?`)
	r.get, errs[1] = r.conn.PrepareContext(ctx, `SELECT v FROM raw WHERE k = ?`)
	r.insert, errs[2] = r.conn.PrepareContext(ctx, `INSERT INTO raw (k, v) VALUES (?, ?)`)
	r.all, errs[3] = r.conn.PrepareContext(ctx, `SELECT k, v FROM raw`)
	return errors.Join(errs[:]...)
}

func (r *sqliteRaw) write(ctx context.Context, worker int, value []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.set.ExecContext(ctx, value, key(worker))
	return err
}

func (r *sqliteRaw) read(ctx context.Context, worker int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var v []byte
	return r.get.QueryRowContext(ctx, key(worker)).Scan(&v)
}

func (r *sqliteRaw) fill(ctx context.Context, n int) error {
	if _, err := r.conn.ExecContext(ctx, `BEGIN`); err != nil {
		return err
	}
	for i := range n {
		if _, err := r.insert.ExecContext(ctx, key(workers+i), value(uint64(i))); err != nil {
			return err
		}
	}
	_, err := r.conn.ExecContext(ctx, `COMMIT`)
	return err
}

func (r *sqliteRaw) scan(ctx context.Context) (n int, err error) {
	rows, err := r.all.QueryContext(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }() // reading: its error came before
	for ; rows.Next(); n++ {
		var k string
		var v []byte
		if err := rows.Scan(&k, &v); err != nil {
			return n, err
		}
	}
	return n, rows.Err()
}

func (r *sqliteRaw) close() { _ = r.db.Close() } // with all that depends on it
