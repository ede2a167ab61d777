package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	lib "modernc.org/sqlite/lib"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/ownfile"
)

// A guarded transaction holds SQLite's lock for writing on the catalog's file from
// before its token is compared until behind its commit. A claim needs that lock, so
// that none commits in between. The application's own rows may be in the catalog's
// file, or in another file that the same connection has open. The same goes for the
// file of a [Register], and for what raises it.

var (
	// ErrNoGuards means that a database is no catalog that a guard can use: it has
	// none, or no build that knows guards has claimed it yet. Of a register it means
	// that the database has none.
	ErrNoGuards = errors.New("this database has no guard")

	errDeferred = errors.New("the transaction is deferred, so it does not hold the file for writing")
)

// A GuardOption changes how [Begin], [Guard] and [Store.OpenDB] work.
type GuardOption func(*guard)

// AttachedAs names the schema as which the connection has the catalog's file. The
// default is "main", and for [Store.OpenDB] of another file "fencepost".
func AttachedAs(schema string) GuardOption { return func(g *guard) { g.schema = schema } }

// InRegister has a transaction guarded by the token of a [Register] in its file, and not
// by that of a catalog.
func InRegister() GuardOption { return func(g *guard) { g.register = true } }

// Guard guards a transaction of database/sql, by modernc.org/sqlite, that has begun
// already: it commits only if token is the newest of its catalog at the commit. It may
// come before or behind the writes. After an error the transaction has been rolled
// back, so that one whose error is ignored can't commit.
//
// Begin such a transaction by BEGIN IMMEDIATE, which is _txlock=immediate in the
// name of the database. A deferred one is guarded if it gets the lock after all, and is
// as safe then: one that has read nothing waits for the lock as BEGIN IMMEDIATE does;
// one that has read gets it only at once, and only if nobody has written since its
// first read. Any other is refused, with the remedy.
//
// Guard sets no limit of time: while the transaction lasts, nobody else writes the
// catalog, and a claim waits, fails within its bound and names this process. One that
// [Begin] has begun lets a claim go on.
//
// If a statement fails so that SQLite rolls the whole transaction back, as INSERT OR
// ROLLBACK and a full disk do, each further statement commits by itself and unguarded.
// So end the transaction after every error. One that [Begin] has begun refuses them.
//
// With [InRegister] it does so for a transaction of any driver, such as mattn's.
//
// The error holds a *[fence.Error] if a newer token was claimed, a
// *[fence.TokenError] if the token is zero or was never issued, and [ErrNoGuards] if
// there is no guard.
func Guard(ctx context.Context, tx *sql.Tx, token fence.Token, options ...GuardOption) error {
	g := newGuard(options)
	err := g.check(token)
	if err == nil {
		err = g.take(ctx, tx, token)
	}
	if err == nil {
		return nil
	}
	if ended := tx.Rollback(); ended != nil && !errors.Is(ended, sql.ErrTxDone) {
		err = errors.Join(err, ended)
	}
	return g.fail(g.why(err))
}

// Refusal returns a guard's refusal that err holds, or nil if err is none: a
// *[fence.Error] if a newer token was claimed, a *[fence.TokenError] if the token was
// missing or never issued, else a *[driver.Error] of status 78 that wraps
// [ErrNoGuards]. It also knows the errors of tables that [Register.InstallGuards] guards,
// in which no token stands. A *fence.Error of a guard is a hint: pass it to
// catalog.Catalog.Explain, or let leader.Leader do it.
func Refusal(err error) error {
	var stale *fence.Error
	var token *fence.TokenError
	var fault *driver.Error
	switch {
	case errors.As(err, &stale) && stale.Guard != "":
		return stale
	case errors.As(err, &token):
		return token
	case errors.As(err, &fault) && errors.Is(fault, ErrNoGuards):
		return fault
	}
	return byTrigger(err)
}

type guard struct {
	schema   string
	register bool // whose token it is, in place of a catalog's
	limit    limits
	path     string // of the file that has the token, once it is known

	// Of a [DB], and nil without one.
	lock, newest *sql.Stmt
	files        openFiles // that its connections have open
	alone        bool      // there is no other library of SQLite in this process
}

func newGuard(options []GuardOption) guard {
	g := guard{schema: "main", limit: defaultLimits}
	for _, o := range options {
		o(&g)
	}
	return g
}

// String names the guard in refusals.
func (g *guard) String() string {
	if g.register {
		return "sqlite register"
	}
	return "sqlite catalog"
}

// check refuses what no claim can have issued.
func (g *guard) check(token fence.Token) error {
	if token.IsZero() {
		return &fence.TokenError{Guard: g.String(), Err: fence.ErrMissing}
	}
	if _, err := token.MarshalText(); err != nil {
		return &fence.TokenError{Guard: g.String(), Token: token.String(), Err: fmt.Errorf("%w: %w", fence.ErrMalformed, err)}
	}
	return nil
}

// The statements of a guard. SCHEMA stands for the quoted name.
const (
	takeLockSQL = `DELETE FROM SCHEMA.claim WHERE 0` // writes nothing, but as a write it takes the lock
	newestSQL   = `SELECT token, claim FROM SCHEMA.fencepost_token`

	// The same of a register.
	takeRegisterSQL   = `DELETE FROM SCHEMA.fencepost_token WHERE 0`
	newestRegisterSQL = `SELECT substr(token, 1, 64), substr(holder, 1, 4096) FROM SCHEMA.fencepost_token`

	issuedSQL = `SELECT EXISTS (SELECT 1 FROM SCHEMA.fencepost_issued WHERE token = ?)`
	fileSQL   = `SELECT file FROM pragma_database_list WHERE name = ? COLLATE NOCASE`
)

func (g *guard) sql(text string) string {
	return strings.ReplaceAll(text, "SCHEMA", `"`+strings.ReplaceAll(g.schema, `"`, `""`)+`"`)
}

// take takes the lock, and only then compares the token.
func (g *guard) take(ctx context.Context, tx *sql.Tx, token fence.Token) error {
	lock, newest, done, err := g.statements(ctx, tx)
	if err == nil {
		defer done()
		_, err = lock.ExecContext(ctx)
	}
	if g.path == "" {
		err = errors.Join(err, g.locate(ctx, tx))
	}
	if err != nil {
		return g.noGuards(err)
	}
	var text, claim sql.NullString // of a register its holder
	err = newest.QueryRowContext(ctx).Scan(&text, &claim)
	if errors.Is(err, sql.ErrNoRows) {
		return &fence.TokenError{Guard: g.String(), Token: token.String(), Err: fence.ErrNeverIssued}
	}
	if err != nil {
		return g.noGuards(err)
	}
	if err := g.compare(ctx, tx, token, text.String, claim.String); err != nil {
		return err
	}
	return g.sound()
}

// statements returns the two statements that each guard runs, and what ends them.
func (g *guard) statements(ctx context.Context, tx *sql.Tx) (lock, newest *sql.Stmt, done func(), err error) {
	if g.lock != nil {
		lock, newest = tx.StmtContext(ctx, g.lock), tx.StmtContext(ctx, g.newest)
		return lock, newest, func() {}, nil // they end with the transaction
	}
	take, look := takeLockSQL, newestSQL
	if g.register {
		take, look = takeRegisterSQL, newestRegisterSQL
	}
	if lock, err = tx.PrepareContext(ctx, g.sql(take)); err != nil {
		return nil, nil, nil, err
	}
	if newest, err = tx.PrepareContext(ctx, g.sql(look)); err != nil {
		return nil, nil, nil, errors.Join(err, lock.Close())
	}
	return lock, newest, func() { _, _ = lock.Close(), newest.Close() }, nil // of a transaction that goes on
}

func (g *guard) compare(ctx context.Context, tx *sql.Tx, token fence.Token, newest, claim string) error {
	never := &fence.TokenError{Guard: g.String(), Token: token.String(), Err: fence.ErrNeverIssued}
	current, err := fence.Parse(newest)
	if err != nil {
		return fmt.Errorf("%w: %w", driver.ErrCorrupt, err)
	}
	switch token.Compare(current) {
	case 0:
		return nil
	case 1:
		return never
	}
	if g.register { // which has no history: what is lower is stale
		return &fence.Error{Held: token, Current: current, By: holderOf(claim), Guard: g.String()}
	}
	var issued bool
	if err := tx.QueryRowContext(ctx, g.sql(issuedSQL), token.String()).Scan(&issued); err != nil {
		return err
	}
	if !issued {
		return never
	}
	by, err := driver.UnmarshalClaim([]byte(claim))
	if err != nil {
		return fmt.Errorf("%w: %w", driver.ErrCorrupt, err)
	}
	return &fence.Error{Held: token, Current: current, By: by.Holder, Guard: g.String()}
}

// sound refuses a file that others may see under another name, a second library of
// SQLite in this process, and a transaction that would keep a claim waiting.
func (g *guard) sound() error {
	files, err := g.files, error(nil)
	if files == nil {
		files, err = namedFiles(g.path)
	}
	if err == nil {
		err = files.unsound()
	}
	if err == nil && !g.alone {
		err = oneLibrary(g.path)
	}
	if err == nil {
		err = g.noClaim()
	}
	return err
}

// noClaim returns errWanted while a claim is under way, as [writer.noClaim] does:
// transactions in a tight loop would starve it.
func (g *guard) noClaim() error {
	f, err := ownfile.Open(g.path+claimEnding, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil // it is one who may write the catalog that has to give way
	}
	if err != nil {
		return err
	}
	defer unlockAndClose(f)
	return flock(f, unix.LOCK_SH)
}

// locate asks for the path of the catalog's file, for an error's text.
func (g *guard) locate(ctx context.Context, tx *sql.Tx) error {
	err := tx.QueryRowContext(ctx, fileSQL, g.schema).Scan(&g.path)
	return ignore(err, sql.ErrNoRows)
}

// noGuards returns ErrNoGuards where SQLite has no such table, view or schema: the
// code that it answers to that is the one for any statement that it can't compile.
func (g *guard) noGuards(err error) error {
	if codeOf(err) != lib.SQLITE_ERROR {
		return err
	}
	return fmt.Errorf("%w: schema %s: %w", ErrNoGuards, g.schema, err)
}

// why adds to an error of a transaction that began elsewhere what caused it. It held
// no lock for writing, or it would not have had to wait for one.
func (g *guard) why(err error) error {
	switch {
	case errors.Is(err, errWanted) || !busy(err):
		return err
	case codeOf(err) == lib.SQLITE_BUSY_SNAPSHOT:
		return fmt.Errorf("%w: others have written since it first read: %w", errDeferred, err)
	}
	return fmt.Errorf("%w: %w by %s: %w", errDeferred, errLocked, lockedBy(g.path), err)
}

// fail classifies an error, unless it is a refusal of the token.
func (g *guard) fail(err error) error {
	var stale *fence.Error
	var token *fence.TokenError
	if errors.As(err, &stale) || errors.As(err, &token) {
		return fmt.Errorf("sqlite: guard: %w", err)
	}
	return (&Store{path: g.path}).wrap("guard", err, false)
}
