package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/fence"
)

// A Beginner begins transactions, as *pgxpool.Pool and *pgx.Conn do.
type Beginner interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// Begin begins a guarded transaction: it commits only if token is the newest of
// its catalog at the commit. The guard travels with BEGIN, so it costs no further
// round trip, but for the first transaction on a connection. The pool's database must
// be the catalog's.
//
// A claim waits until the guarded transactions in flight have ended, and ends
// those that take longer than [Config.GuardTimeout]. A transaction that waits for
// its client for more than 10 s is ended by the server; a shorter
// idle_in_transaction_session_timeout stays as the connection's first guarded
// transaction has found it.
//
// The error holds a *[fence.Error] if a newer token was claimed, a
// *[fence.TokenError] if the token is zero or was never issued, and [ErrNoGuards]
// if the database has no guards. A guard is a lock at every isolation level, whatever
// the snapshot. Above READ COMMITTED a refusal may be 40001 instead: begin again.
//
// A *pgxpool.Pool, *pgxpool.Conn and *pgx.Conn cost least: of their connections Begin
// remembers for a second that the database is no copy, and then only locks. Of another
// Beginner each transaction is asked about in full.
func Begin(ctx context.Context, pool Beginner, token fence.Token, options ...GuardOption) (pgx.Tx, error) {
	g, err := newGuard(options)
	if err == nil && g.options.BeginQuery != "" {
		err = fmt.Errorf("TxOptions.BeginQuery is %q, want it empty: the guard takes its place", g.options.BeginQuery)
	}
	var tx pgx.Tx
	if err == nil {
		tx, err = g.beginBy(ctx, pool, token)
	}
	if err != nil {
		return nil, fmt.Errorf("postgres: begin: %w", guardError(err))
	}
	return tx, nil
}

func (g guard) beginBy(ctx context.Context, by Beginner, token fence.Token) (pgx.Tx, error) {
	switch by := by.(type) {
	case *pgx.Conn:
		return g.beginOn(ctx, by, token)
	case *pgxpool.Conn:
		return g.beginOn(ctx, by.Conn(), token)
	case *pgxpool.Pool:
		conn, err := by.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		tx, err := g.beginOn(ctx, conn.Conn(), token)
		if err != nil {
			conn.Release()
			return nil, err
		}
		return &pooledTx{tx, conn}, nil
	}
	sql, err := g.sql(token)
	if err != nil {
		return nil, err
	}
	return by.BeginTx(ctx, g.beginAnd(sql))
}

// beginOn only takes the lock if it is known of the connection that the database is
// no copy. If there is nothing to lock, the function that guards says why.
func (g guard) beginOn(ctx context.Context, conn *pgx.Conn, token fence.Token) (pgx.Tx, error) {
	sql, err := g.sql(token)
	if err != nil {
		return nil, err
	}
	seen := knownOf(conn)
	if time.Since(seen.here[g.key()]) < knownFor {
		tx, err := g.tryBegin(ctx, conn, g.lockSQL(token)+"; set local idle_in_transaction_session_timeout = '"+seen.idle+"'")
		if sqlState(err) != undefinedTable {
			return tx, err
		}
	}
	tx, err := g.tryBegin(ctx, conn, sql)
	if err == nil && seen.idle == "" {
		err = tx.QueryRow(ctx, `select pg_catalog.current_setting('idle_in_transaction_session_timeout')`).Scan(&seen.idle)
	}
	if err != nil {
		leaveFailed(ctx, conn)
		return nil, err
	}
	seen.here[g.key()] = time.Now()
	return tx, nil
}

const undefinedTable = "42P01"

func (g guard) tryBegin(ctx context.Context, conn *pgx.Conn, sql string) (pgx.Tx, error) {
	tx, err := conn.BeginTx(ctx, g.beginAnd(sql))
	if err != nil {
		leaveFailed(ctx, conn)
	}
	return tx, err
}

// leaveFailed ends the transaction that has begun before the guard refused it. If it
// fails, the connection is closed.
func leaveFailed(ctx context.Context, conn *pgx.Conn) {
	if conn.PgConn().TxStatus() != 'I' {
		_, _ = conn.Exec(ctx, "rollback")
	}
}

// knownFor is how long what a look has found of a connection is believed. A pooler can
// be pointed to a copy of the database, and a copy can be restored over it, behind a
// connection that lives on.
const knownFor = time.Second

// A known is what is known of a connection.
type known struct {
	here map[string]time.Time // when a claim of this key was last seen to have been made in this database
	idle string               // how long a guarded transaction may wait for its client
}

const knownKey = "github.com/fencepost/fencepost/catalog/postgres.known"

func knownOf(conn *pgx.Conn) *known {
	data := conn.PgConn().CustomData()
	seen, ok := data[knownKey].(*known)
	if !ok {
		seen = &known{here: map[string]time.Time{}}
		data[knownKey] = seen
	}
	return seen
}

// lockSQL returns the statement that locks the view which is there while token is the
// newest. See guardSQL.
func (g guard) lockSQL(token fence.Token) string {
	return "lock table " + pgx.Identifier{"fencepost", viewName(g.key(), token)}.Sanitize() + " in row exclusive mode"
}

// viewName does what fencepost.guard_view does.
func viewName(key string, token fence.Token) string {
	if len(key) > 21 {
		sum := sha256.Sum256([]byte(key))
		key = key[:8] + "~" + hex.EncodeToString(sum[:6])
	}
	return key + "@" + token.String()
}

// beginAnd returns the options by which pgx begins a transaction with the statement
// that it would send and another one.
func (g guard) beginAnd(sql string) pgx.TxOptions {
	o := g.options
	o.BeginQuery = g.begin() + "; " + sql
	return o
}

// begin returns the statement that pgx would send.
func (g guard) begin() string {
	sql := "begin"
	if g.options.IsoLevel != "" {
		sql += " isolation level " + string(g.options.IsoLevel)
	}
	for _, mode := range []string{string(g.options.AccessMode), string(g.options.DeferrableMode)} {
		if mode != "" {
			sql += " " + mode
		}
	}
	return sql
}

// A pooledTx gives its connection back at its end.
type pooledTx struct {
	pgx.Tx
	conn *pgxpool.Conn // nil behind the end
}

// Commit implements [pgx.Tx].
func (tx *pooledTx) Commit(ctx context.Context) error {
	err := tx.Tx.Commit(ctx)
	tx.release()
	return err
}

// Rollback implements [pgx.Tx].
func (tx *pooledTx) Rollback(ctx context.Context) error {
	err := tx.Tx.Rollback(ctx)
	tx.release()
	return err
}

func (tx *pooledTx) release() {
	if tx.conn != nil {
		tx.conn.Release()
		tx.conn = nil
	}
}
