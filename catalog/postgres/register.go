package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/step"
)

var (
	_ fence.Register      = (*Register)(nil)
	_ driver.TableGuarder = (*Register)(nil)
)

const registerPrefix = "register:"

// A Register is the token of a service whose rows are in this database and whose
// catalog is elsewhere, such as in etcd. A new holder raises it before its work begins
// (leader.Config.Registers); transactions and tables are guarded by it as by a
// catalog, with [InRegister].
type Register struct{ store *Store }

// OpenRegister returns a register. The DSN is that of [Open]; its parameter catalog
// names the register. The first use creates schema fencepost. It contacts nobody.
func OpenRegister(ctx context.Context, dsn string, cfg Config) (*Register, error) {
	name, conns, err := parseDSN(dsn)
	l, err := newLinks(ctx, conns, cfg, err)
	if err != nil {
		return nil, err
	}
	name = cmp.Or(name, "main")
	s := newStore(ctx, l, registerPrefix+name)
	s.name, s.release = storeName(l.to, name)+" (register)", l.close
	return &Register{s}, nil
}

// String names server, database and register. It never holds a secret.
func (r *Register) String() string { return r.store.String() }

// Close closes the register's connections.
func (r *Register) Close() error { return r.store.Close() }

// InstallGuards, RemoveGuards and Guards implement [driver.TableGuarder].
func (r *Register) InstallGuards(ctx context.Context, tables driver.GuardedTables) error {
	return r.store.InstallGuards(ctx, tables)
}

// RemoveGuards implements [driver.TableGuarder].
func (r *Register) RemoveGuards(ctx context.Context, tables driver.GuardedTables) error {
	return r.store.RemoveGuards(ctx, tables)
}

// Guards implements [driver.TableGuarder].
func (r *Register) Guards(ctx context.Context) (driver.Guards, error) { return r.store.Guards(ctx) }

const registerSQL = `select t.generation, t.epoch, coalesce(pg_catalog.starts_with(t.stamp, pg_catalog.concat(t.xmin, ':', t.tableoid, ':')), false),
	coalesce((select c.claim from fencepost.claim c where c.catalog = t.catalog order by c.revision desc limit 1), '')
	from fencepost.token t where t.catalog = $1`

// State returns what the register holds.
func (r *Register) State(ctx context.Context) (state driver.RegisterState, err error) {
	s := r.store
	conn, err := s.acquire(ctx, s.liveness)
	if err != nil {
		return state, s.fail("read", err, notSent)
	}
	defer s.give(conn)
	there, err := s.guardsInstalled(ctx, conn)
	if err != nil {
		return state, s.fail("read", err, notSent)
	}
	if !there {
		return state, nil
	}
	var generated, epoched int64
	var here bool
	var raised string
	err = conn.QueryRow(ctx, registerSQL, s.args(s.catalog)...).Scan(&generated, &epoched, &here, &raised)
	if errors.Is(err, pgx.ErrNoRows) {
		return state, nil
	}
	if err != nil {
		return state, s.fail("read", err, notSent)
	}
	state.Token = fence.Token{Generation: generation.Generation(generated), Epoch: epoch.Epoch(epoched)}
	if !here {
		state.Problem = "the database is a copy, and its guards refuse every token until it is raised here"
	}
	claim := struct{ Holder *fence.Holder }{&state.Holder}
	_ = json.Unmarshal([]byte(raised), &claim) // for people: what can't be read is left out
	return state, nil
}

// provingWait bounds how long a proof waits for the lock of the guards: writers wait
// behind it meanwhile. If this process stops behind that, the server rolls the proof
// back after provingIdle.
const (
	provingWait = 20 * time.Millisecond
	provingIdle = time.Second
)

// Prove implements [fence.Register] by a raise that is rolled back, with the schema
// if there is none yet.
func (r *Register) Prove(ctx context.Context, t fence.Token) error {
	idle := min(r.store.config.ClaimIdle, provingIdle)
	err := r.try(ctx, idle, provingWait, func(tx pgx.Tx, _ int) error {
		return r.rise(ctx, tx, t, fence.Holder{})
	})
	if sqlState(err) == "55P03" || errors.Is(err, errAppeared) { // it would only have to wait, or another process has just made the schema
		return nil
	}
	return err
}

// Raise implements [fence.Register]. It waits for the guarded transactions in flight,
// and ends those that take longer than [Config.GuardTimeout].
func (r *Register) Raise(ctx context.Context, t fence.Token, by fence.Holder) error {
	if err := r.store.ddl(ctx, r.store.prepareGuards); err != nil {
		return err
	}
	wait := patienceOf(ctx)
	return r.try(ctx, r.store.config.ClaimIdle, wait.lock, func(tx pgx.Tx, pid int) error {
		err := r.store.orBlocked(ctx, wait, pid, true, func(ctx context.Context) error { return r.rise(ctx, tx, t, by) })
		if err != nil {
			return err
		}
		pg := tx.Conn().PgConn()
		expectCommit(pg)
		if err := tx.Commit(ctx); err != nil {
			return r.store.fail("raise", err, commitSent)
		}
		if err := checkCommit(pg); err != nil {
			return r.store.fail("raise", err, commitSent)
		}
		return nil
	})
}

// try begins a transaction with bounds, as a claim's, and calls fn with it and its
// backend's process. Fn commits, or the transaction is rolled back.
func (r *Register) try(ctx context.Context, idle, wait time.Duration, fn func(tx pgx.Tx, pid int) error) error {
	s := r.store
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		return s.fail("raise", err, notSent)
	}
	defer s.give(conn)
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return s.fail("raise", err, notSent)
	}
	defer rollback(tx)
	var pid int
	if err = s.alone(ctx, tx, s.bounds(wait, idle, &pid)); err == nil {
		err = s.prepareGuards(ctx, tx)
	}
	if err == nil {
		err = fn(tx, pid)
	}
	var above *fence.Error
	if err == nil || errors.As(err, &above) {
		return err
	}
	return s.fail("raise", err, notSent)
}

const raiseSQL = `select fencepost.raise($1, $2::bigint, $3::bigint, $4)`

// rise raises the register in a transaction, unless it holds a higher token.
func (r *Register) rise(ctx context.Context, tx pgx.Tx, t fence.Token, by fence.Holder) error {
	s, name := r.store, r.store.catalog[len(registerPrefix):]
	holder, err := json.Marshal(by)
	if err != nil {
		return err
	}
	var text string
	err = tx.QueryRow(ctx, raiseSQL, s.args(name, int64(t.Generation), int64(t.Epoch), string(holder))...).Scan(&text)
	if err != nil {
		return err
	}
	now, err := fence.Parse(text)
	if err != nil {
		return fmt.Errorf("%w: the register holds %q", driver.ErrCorrupt, text)
	}
	if now.Compare(t) > 0 {
		return &fence.Error{Held: t, Current: now, Guard: guard{catalog: name, register: true}.String()}
	}
	step.Reach(ctx, step.RegisterWritten)
	return nil
}
