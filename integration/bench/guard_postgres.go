package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
)

// The goals of guards, as multiples of the time of the same transaction without
// one, by 32 clients.
const (
	beginGoal   = 1.10
	triggerGoal = 1.15
)

// guards measures a transaction of five statements: plain, by Begin, and into a table
// that the database guards.
func (p *postgresBackend) guards(b *bench) error {
	h, err := b.hold(fresh("guard"))
	if err != nil {
		return err
	}
	defer h.close()
	plain, guarded := fresh("plain"), fresh("guarded")
	pool, err := p.guardPool(b.ctx, h.Claim().Token.String())
	if err != nil {
		return err
	}
	defer pool.Close()
	for _, table := range []string{plain, guarded} {
		sql := fmt.Sprintf(`create table %[1]q (id int primary key, n int) with (fillfactor = 50); insert into %[1]q select i, 0 from generate_series(1, 100000) i; analyze %[1]q`, table)
		if _, err := pool.Exec(b.ctx, sql); err != nil {
			return err
		}
	}
	store, ok := driver.As[driver.TableGuarder](h.store)
	if !ok {
		return fmt.Errorf("the store of %s guards no tables", p.name())
	}
	if err := store.InstallGuards(b.ctx, driver.GuardedTables{Tables: []string{fmt.Sprintf("%q", guarded)}}); err != nil {
		return err
	}
	unguarded := func(table string) operation {
		return func(ctx context.Context, worker int) error {
			tx, err := pool.Begin(ctx)
			if err != nil {
				return err
			}
			return b.five(ctx, tx, table, worker)
		}
	}
	byBegin := func(ctx context.Context, worker int) error {
		tx, err := postgres.Begin(ctx, pool, h.Claim().Token, postgres.InCatalog(h.name))
		if err != nil {
			return err
		}
		return b.five(ctx, tx, plain, worker)
	}
	for _, way := range []struct {
		name string
		op   operation
		goal float64
	}{{"guarded by Begin, 32 clients", byBegin, beginGoal}, {"guarded by the database, 32 clients", unguarded(guarded), triggerGoal}} {
		c, err := versus(b.rounds, b.clients(unguarded(plain)), b.clients(way.op))
		if err != nil {
			return err
		}
		slower := 1 / c.ops
		b.report(figure{Name: way.name, P50: c.ours.p50, P99: c.ours.p99, Ops: c.ours.ops, FloorUS: c.floor.p50, Ratio: slower}.
			atMost(slower, way.goal, "x unguarded"))
	}
	return nil
}

// guardPool returns a pool whose sessions give a token to guarded tables.
func (p *postgresBackend) guardPool(ctx context.Context, token string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(p.dsn)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns, cfg.MinConns = guardClients, guardClients
	cfg.ConnConfig.RuntimeParams[postgres.TokenSetting] = token
	return pgxpool.NewWithConfig(ctx, cfg)
}

// five runs the five statements and commits. Each worker has rows of its own.
func (b *bench) five(ctx context.Context, tx pgx.Tx, table string, worker int) error {
	defer func() { _ = tx.Rollback(ctx) }() // behind a commit it does nothing
	id := func() int { return worker*3000 + int(b.serials.Add(1)%3000) + 1 }
	read, write := fmt.Sprintf(`select n from %q where id = $1`, table), fmt.Sprintf(`update %q set n = n + 1 where id = $1`, table)
	for i := range 5 {
		row, n := id(), 0
		var err error
		if i%2 == 0 {
			err = tx.QueryRow(ctx, read, row).Scan(&n)
		} else {
			_, err = tx.Exec(ctx, write, row)
		}
		if err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}
