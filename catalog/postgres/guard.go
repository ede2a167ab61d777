package postgres

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/fence"
)

// TokenSetting is the setting by which a session gives its token to the tables
// that are guarded by the database (see [Store.InstallGuards]), such as by
//
//	set local fencepost.token = 'g7.e41'
//
// in each transaction, which works behind a pooler too, or in the
// RuntimeParams of a pool's ConnConfig. Behind a pooler in transaction mode a
// setting of the session would pass on to other clients.
const TokenSetting = "fencepost.token"

// A GuardOption changes how [Begin], [Exec], [Guard] and [GuardSQL] work.
type GuardOption func(*guard)

// InCatalog names the catalog whose token guards the transaction. The default is
// "main".
func InCatalog(name string) GuardOption { return func(g *guard) { g.catalog = name } }

// InRegister names the [Register] whose token guards the transaction, in place of a
// catalog.
func InRegister(name string) GuardOption {
	return func(g *guard) { g.catalog, g.register = name, true }
}

// WithTxOptions sets isolation level, access mode and the rest for [Begin] and [Exec].
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
