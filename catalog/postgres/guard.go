package postgres

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/fence"
)

// TokenSetting is the setting by which a session gives its token to the tables
// that are guarded by the database (see [GuardTables]), such as by
//
//	set local fencepost.token = 'g7.e41'
//
// in each transaction, which works behind a pooler too, or in the
// RuntimeParams of a pool's ConnConfig. Behind a pooler in transaction mode a
// setting of the session would pass on to other clients.
const TokenSetting = "fencepost.token"

// A Beginner begins transactions, as *pgxpool.Pool and *pgx.Conn do.
type Beginner interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// A GuardOption changes how [Begin], [Guard] and [GuardSQL] work.
type GuardOption func(*guard)

// InCatalog names the catalog whose token guards the transaction. The default is
// "main".
func InCatalog(name string) GuardOption { return func(g *guard) { g.catalog = name } }

// InRegister names the [Register] whose token guards the transaction, in place of a
// catalog.
func InRegister(name string) GuardOption {
	return func(g *guard) { g.catalog, g.register = name, true }
}

// WithTxOptions sets isolation level, access mode and the rest for [Begin].
// BeginQuery must be empty.
func WithTxOptions(options pgx.TxOptions) GuardOption { return func(g *guard) { g.options = options } }

type guard struct {
	catalog  string
	register bool // catalog is the name of a register
	options  pgx.TxOptions
}

func newGuard(options []GuardOption) (guard, error) {
	g := guard{catalog: "main"}
	for _, o := range options {
		o(&g)
	}
	return g, checkCatalog(g.catalog)
}

// Begin begins a guarded transaction: it commits only if token is the newest of
// its catalog at the commit. The guard travels with BEGIN, so it costs no further
// round trip. The pool's database must be the catalog's.
//
// A claim waits until the guarded transactions in flight have ended, and ends
// those that take longer than [Config.GuardTimeout]. A transaction that waits for
// its client for more than 10 s is ended by the server.
//
// The error holds a *[fence.Error] if a newer token was claimed, a
// *[fence.TokenError] if the token is zero or was never issued, and [ErrNoGuards]
// if the database has no guards. A pool closes the connection behind any of them. At
// READ COMMITTED a guard takes a table lock. Above it, it also locks the token's
// row FOR SHARE: PostgreSQL then makes a multixact for each transaction that
// runs beside another one, and a transaction whose snapshot is older than the
// newest claim fails with 40001. A READ ONLY transaction locks no row: above READ
// COMMITTED it is checked against the token of its own snapshot.
func Begin(ctx context.Context, pool Beginner, token fence.Token, options ...GuardOption) (pgx.Tx, error) {
	g, err := newGuard(options)
	if err != nil {
		return nil, fmt.Errorf("postgres: begin: %w", err)
	}
	sql, err := g.sql(token)
	if err != nil {
		return nil, fmt.Errorf("postgres: begin: %w", err)
	}
	if g.options.BeginQuery != "" {
		return nil, fmt.Errorf("postgres: begin: TxOptions.BeginQuery is %q, want it empty: the guard takes its place", g.options.BeginQuery)
	}
	g.options.BeginQuery = g.begin() + "; " + sql
	tx, err := pool.BeginTx(ctx, g.options)
	if err != nil {
		leaveFailed(ctx, pool)
		return nil, fmt.Errorf("postgres: begin: %w", guardError(err))
	}
	return tx, nil
}

// leaveFailed ends the transaction that BEGIN has begun before the guard refused it,
// if the caller has the connection. A pool closes a connection in that state.
func leaveFailed(ctx context.Context, b Beginner) {
	var conn *pgx.Conn
	switch b := b.(type) {
	case *pgx.Conn:
		conn = b
	case *pgxpool.Conn:
		conn = b.Conn()
	}
	if conn != nil && conn.PgConn().TxStatus() == 'E' {
		_, _ = conn.Exec(ctx, "rollback") // if it fails, the connection is closed
	}
}

// Guard guards a transaction of pgx that has begun already, by one round trip. It
// says of the whole transaction what [Begin] does, whether it comes before or
// behind the writes. After an error the transaction can only be rolled back. A
// guard inside a savepoint, such as a nested transaction of pgx, ends if that is
// rolled back.
func Guard(ctx context.Context, tx pgx.Tx, token fence.Token, options ...GuardOption) error {
	return guardBy(token, options, func(sql string) error {
		_, err := tx.Exec(ctx, sql)
		return err
	})
}

// GuardSQL does what [Guard] does for a transaction of database/sql, by pgx or by
// lib/pq.
func GuardSQL(ctx context.Context, tx *sql.Tx, token fence.Token, options ...GuardOption) error {
	return guardBy(token, options, func(sql string) error {
		_, err := tx.ExecContext(ctx, sql)
		return err
	})
}

func guardBy(token fence.Token, options []GuardOption, exec func(sql string) error) error {
	g, err := newGuard(options)
	if err != nil {
		return fmt.Errorf("postgres: guard: %w", err)
	}
	sql, err := g.sql(token)
	if err == nil {
		err = guardError(exec(sql))
	}
	if err != nil {
		return fmt.Errorf("postgres: guard: %w", err)
	}
	return nil
}

// sql returns the statement that guards. It has no parameters, so that it goes
// along with BEGIN and through every pooler; neither text has a quote in it.
func (g guard) sql(token fence.Token) (string, error) {
	if token.IsZero() {
		return "", &fence.TokenError{Guard: g.String(), Err: fence.ErrMissing}
	}
	text, err := token.MarshalText()
	if err != nil {
		return "", err
	}
	return "select fencepost.guard('" + g.key() + "', '" + string(text) + "')", nil
}

// key is the name of the row in fencepost.token. No catalog can have one with a
// colon.
func (g guard) key() string {
	if g.register {
		return registerPrefix + g.catalog
	}
	return g.catalog
}

// String names the guard in refusals.
func (g guard) String() string {
	if g.register {
		return "postgres register " + g.catalog
	}
	return "postgres catalog " + g.catalog
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
