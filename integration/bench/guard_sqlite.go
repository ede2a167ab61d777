package main

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync"

	"github.com/fencepost/fencepost/catalog/sqlite"
)

const sqliteGuardGoal = 1.10 // of the time of a transaction that the application queues

// guards measures a transaction of five statements by [sqlite.Begin] beside the same
// one of an application that queues its own transactions, in the catalog's file and in
// one of its own; and requests, whose gate reads this catalog.
func (b *sqliteBackend) guards(m *bench) error {
	for _, way := range []struct{ name, file string }{
		{"guarded transaction, in the catalog's file, 32 clients", ""},
		{"guarded transaction, in a file of its own, 32 clients", "file:" + filepath.Join(b.dir, fresh("app")) + ".db?_pragma=journal_mode(WAL)&_pragma=synchronous(2)"},
	} {
		if err := b.transactions(m, way.name, way.file); err != nil {
			return err
		}
	}
	return requests(m)
}

func (b *sqliteBackend) transactions(m *bench, name, file string) (err error) {
	catalog := fresh("guard")
	store, err := sqlite.Open(b.path(catalog), sqlite.Config{})
	if err != nil {
		return err
	}
	h, err := m.holdIn(store, catalog)
	if err != nil {
		return err
	}
	defer h.close()
	db, err := store.OpenDB(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxIdleConns(guardClients)
	if _, err := db.ExecContext(m.ctx, "CREATE TABLE orders (n, text)"); err != nil {
		return err
	}
	var queue sync.Mutex
	queued := func(ctx context.Context, worker int) error {
		queue.Lock()
		defer queue.Unlock()
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		return fiveInserts(ctx, tx, worker)
	}
	guarded := func(ctx context.Context, worker int) error {
		tx, err := sqlite.Begin(ctx, db, h.Token())
		if err != nil {
			return err
		}
		return fiveInserts(ctx, tx, worker)
	}
	c, err := versus(m.rounds, m.few(queued), m.few(guarded))
	if err != nil {
		return err
	}
	slower := 1 / c.ops
	m.report(figure{Name: name, P50: c.ours.p50, P99: c.ours.p99, Ops: c.ours.ops, FloorUS: c.floor.p50, Ratio: slower}.
		atMost(slower, sqliteGuardGoal, "x queued"))
	return nil
}

// few is clients with fewer transactions: each waits for all others.
func (b *bench) few(op operation) round {
	return func() (timing, error) { return load(b.ctx, guardClients, max(b.each/8, 1), op) }
}

// A transaction is what database/sql and package sqlite have in common.
type transaction interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	Commit() error
	Rollback() error
}

func fiveInserts(ctx context.Context, tx transaction, worker int) error {
	defer func() { _ = tx.Rollback() }() // behind a commit it does nothing
	for range 5 {
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders VALUES (?, ?)", worker, "an order of some size, as an application may have it"); err != nil {
			return err
		}
	}
	return tx.Commit()
}
