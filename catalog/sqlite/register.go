package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
	lib "modernc.org/sqlite/lib"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/ownfile"
	"github.com/fencepost/fencepost/internal/step"
)

var _ fence.Register = (*Register)(nil)

var (
	errNoFile  = errors.New("there is no such file")
	errCatalog = errors.New("the file is a catalog")
)

// A Register is the token of a service in the application's own file, if the catalog
// is elsewhere, such as in etcd, or if the application uses another library of SQLite
// than modernc's, which may not open the catalog's file. A new holder raises it before
// its work begins (leader.Config.Registers). [Guard] and [Begin] guard transactions by
// it, with [InRegister]; a program in another language begins by BEGIN IMMEDIATE, then
// reads the token by SELECT token FROM fencepost_token, and compares it with its own.
//
// A raise waits for whoever writes to the file, and gets its turn: transactions of Begin
// that last longer than [ClaimAfter] are rolled back for it, others are waited for. A
// process that is stopped while it writes blocks it until it is continued or killed,
// and is named.
type Register struct {
	guard  guard
	db     *sql.DB // of the application; nil: the file is opened for each call
	trusts bool    // whatever file system it is
	alone  bool    // there is no other library of SQLite in this process
}

// OpenRegister returns the register in the file at path, which the application has
// created. It opens nothing: each call opens the file by modernc's library, and closes
// it again. The file may be in WAL mode or not. Symbolic links are followed once, here,
// and a file with a second name is refused, as [Open] does.
//
// An application that uses another library hands its own connections to [NewRegister]:
// two libraries on one file damage it. On Linux, a call is refused if this process may
// have another one, and has the file open.
func OpenRegister(path string, cfg Config) (*Register, error) {
	if path == "" {
		return nil, errors.New("sqlite: no path given")
	}
	own, _, err := resolve(path)
	r := &Register{guard: newGuard([]GuardOption{InRegister()}), trusts: cfg.TrustFileSystem, alone: !otherLibrary()}
	r.guard.path = cmp.Or(own, path)
	if err != nil {
		return nil, r.fail("open", err, false)
	}
	_ = lockByOpenFile() // what follows if it can't: see probeLocks
	return r, nil
}

// NewRegister returns the register in the application's own database, by whichever
// driver db is of. It asks for the name of the file. [AttachedAs] names the schema of
// another file than the connections' main one.
//
// A call uses one connection of db, and waits for a lock for the busy_timeout of that,
// also beyond its context. It closes nothing.
func NewRegister(ctx context.Context, db *sql.DB, options ...GuardOption) (*Register, error) {
	r := &Register{guard: newGuard(append(options[:len(options):len(options)], InRegister())), db: db, alone: true}
	err := db.QueryRowContext(ctx, fileSQL, r.guard.schema).Scan(&r.guard.path)
	if err := ignore(err, sql.ErrNoRows); err != nil {
		return nil, r.fail("open", err, false)
	}
	if r.guard.path == "" {
		return nil, r.fail("open", fmt.Errorf("%w: schema %s is in memory, or there is none", errNoFile, r.guard.schema), false)
	}
	return r, nil
}

// String returns sqlite: and the path of the file.
func (r *Register) String() string { return "sqlite:" + r.guard.path + " (register)" }

// Close does nothing: no call leaves anything open.
func (r *Register) Close() error { return nil }

// provingWait bounds how long a proof waits for other writers.
const provingWait = 20 * time.Millisecond

// Prove implements [fence.Register] by a raise that is rolled back. A file that is
// being written is one for which a raise would only have to wait, unless the writer is
// a process that is stopped.
func (r *Register) Prove(ctx context.Context, t fence.Token) error {
	if err := r.guard.check(t); err != nil {
		return r.fail("prove", err, false)
	}
	err := r.with(ctx, func(c *registerCall) error {
		bounded, cancel := context.WithTimeout(ctx, provingWait)
		defer cancel()
		err := c.begin(bounded)
		if errors.Is(err, errLocked) && !isStopped(locker(r.guard.path)) {
			return c.proveBehind(t)
		}
		if err != nil {
			return err
		}
		_, err = c.raise(t, fence.Holder{})
		return err
	})
	return r.fail("prove", err, false)
}

// State returns what the register holds.
func (r *Register) State(ctx context.Context) (state driver.RegisterState, err error) {
	err = r.with(ctx, func(c *registerCall) error {
		return untilFree(ctx, func() error {
			there, err := c.guard.registerThere(c.conn)
			if err == nil && there {
				state.Token, state.Holder, err = c.guard.readRegister(c.conn)
			}
			return err
		})
	})
	return state, r.fail("read", err, false)
}

// Raise implements [fence.Register].
func (r *Register) Raise(ctx context.Context, t fence.Token, by fence.Holder) error {
	if err := r.guard.check(t); err != nil {
		return r.fail("raise", err, false)
	}
	committing := false
	err := r.with(ctx, func(c *registerCall) error {
		leave, err := r.turn(ctx, c.files)
		if err != nil {
			return err
		}
		defer leave()
		if err := c.begin(ctx); err != nil {
			return err
		}
		step.Reach(ctx, step.RegisterLocked)
		if rises, err := c.raise(t, by); err != nil || !rises {
			return err
		}
		step.Reach(ctx, step.RegisterWritten)
		committing = true
		if err := c.commit(ctx); err != nil {
			return err
		}
		step.Reach(ctx, step.RegisterRaised)
		return nil
	})
	return r.fail("raise", err, committing)
}

// turn has the transactions of [Begin] give way. What it returns ends that.
func (r *Register) turn(ctx context.Context, files openFiles) (leave func(), err error) {
	lock := r.guard.path + claimEnding
	f, err := ownfile.OpenLock(lock, ownfile.Beside(files[0].info))
	if errors.Is(err, fs.ErrPermission) {
		return func() {}, nil // whoever can write the file can do without
	}
	if err != nil {
		return nil, err
	}
	leave = func() { unlockAndClose(f) }
	if err := untilFree(ctx, func() error { return flock(f, unix.LOCK_EX) }); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// with calls fn with a connection, and rolls back what it has left.
func (r *Register) with(ctx context.Context, fn func(*registerCall) error) (err error) {
	db, done, err := r.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	var conn *sql.Conn
	if err := untilFree(ctx, func() (err error) { conn, err = db.Conn(ctx); return err }); err != nil {
		return err
	}
	c := &registerCall{guard: &r.guard, conn: conn}
	defer c.end()
	if _, err := r.guard.registerThere(conn); err != nil && !busy(err) { // a first read opens the files beside it
		return err
	}
	if c.files, err = namedFiles(r.guard.path); err != nil {
		return err
	}
	if err := oneLibrary(r.guard.path); err != nil {
		return err
	}
	return fn(c)
}

// open returns the application's connections, or opens some of its own.
func (r *Register) open() (db *sql.DB, done func() error, err error) {
	if r.db != nil {
		return r.db, func() error { return nil }, nil
	}
	path := r.guard.path
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%w: %s", errNoFile, path)
	}
	if err := (&Store{path: path, trusts: r.trusts}).checkPlace(); err != nil {
		return nil, nil, err
	}
	if !r.alone && openHere(path) > 0 {
		return nil, nil, fmt.Errorf("%w: %s", errOtherLibrary, path)
	}
	if db, err = sql.Open("sqlite", dsn(path, "mode=rw", "_pragma=busy_timeout(0)", "_pragma=synchronous(3)")); err != nil {
		return nil, nil, err
	}
	db.SetMaxOpenConns(1)
	return db, db.Close, nil
}

// fail classifies an error, unless it is a refusal of the token.
func (r *Register) fail(op string, err error, committing bool) error {
	var stale *fence.Error
	var token *fence.TokenError
	if errors.As(err, &stale) || errors.As(err, &token) {
		return fmt.Errorf("sqlite: %s: %w", op, err)
	}
	s := &Store{path: r.guard.path}
	return s.wrap(op, s.blocked(err), committing)
}

// A registerCall is one call under way. Its statements are never cut short: see
// unbounded.
type registerCall struct {
	guard *guard
	conn  *sql.Conn
	files openFiles // that have the names
	open  bool      // a transaction
}

// begin takes SQLite's lock for writing.
func (c *registerCall) begin(ctx context.Context) error {
	err := untilFree(ctx, func() error {
		if err := c.files.unsound(); err != nil {
			return err
		}
		_, err := c.conn.ExecContext(unbounded, "BEGIN IMMEDIATE")
		return err
	})
	if busy(err) {
		return fmt.Errorf("%w by %s: %w", errLocked, lockedBy(c.guard.path), err)
	}
	c.open = err == nil
	return err
}

// commit commits. Without a WAL it waits for those who read, behind whom nobody begins.
func (c *registerCall) commit(ctx context.Context) error {
	err := untilFree(ctx, func() error {
		_, err := c.conn.ExecContext(unbounded, "COMMIT")
		return err
	})
	if busy(err) {
		return fmt.Errorf("%w by those who read it, such as %s: %w", errLocked, describe(reader(c.guard.path)), err)
	}
	if err != nil {
		return err
	}
	c.open = false
	if err := c.files.moved(); err != nil {
		return fmt.Errorf("%w: %w", errMovedCommit, err)
	}
	return nil
}

// end rolls back a transaction that is left, and gives the connection back.
func (c *registerCall) end() {
	if c.open {
		if _, err := c.conn.ExecContext(unbounded, "ROLLBACK"); err != nil && codeOf(err) != lib.SQLITE_ERROR { // SQLite has rolled back by itself
			_ = c.conn.Raw(func(any) error { return sqldriver.ErrBadConn }) // closes it
		}
	}
	_ = c.conn.Close()
}

// raise raises the register within the transaction, and reports whether that has
// changed anything.
func (c *registerCall) raise(t fence.Token, by fence.Holder) (rises bool, err error) {
	if err := c.guard.prepareRegister(c.conn); err != nil {
		return false, err
	}
	if rises, err = c.compare(t); err != nil || !rises {
		return false, err
	}
	holder, err := json.Marshal(by)
	if err != nil {
		return false, err
	}
	args := []any{int64(t.Generation), int64(t.Epoch), t.String(), string(holder)}
	done, err := c.conn.ExecContext(unbounded, c.guard.sql(raiseRegisterSQL), args...)
	if err != nil {
		return false, c.guard.noGuards(err)
	}
	if n, err := done.RowsAffected(); err != nil || n > 0 {
		return true, err
	}
	_, err = c.conn.ExecContext(unbounded, c.guard.sql(addRegisterSQL), args...)
	return true, err
}

// proveBehind compares the token while somebody else writes. If that can't be read
// either, the writer is about to commit.
func (c *registerCall) proveBehind(t fence.Token) error {
	there, err := c.guard.registerThere(c.conn)
	if err == nil && there {
		_, err = c.compare(t)
	}
	if busy(err) {
		return nil
	}
	return err
}

// compare reports whether t is above what the register holds. If it is below, the
// error is a *fence.Error.
func (c *registerCall) compare(t fence.Token) (above bool, err error) {
	now, by, err := c.guard.readRegister(c.conn)
	if err != nil {
		return false, err
	}
	order := t.Compare(now)
	if order < 0 {
		return false, &fence.Error{Held: t, Current: now, By: by, Guard: c.guard.String()}
	}
	return order > 0, nil
}
