package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"github.com/fencepost/fencepost/fence"
)

var (
	errGaveWay     = errors.New("the transaction was rolled back, since a claim waits for it")
	errTooLong     = errors.New("the transaction was rolled back, since it took too long")
	errOtherDriver = errors.New("the connections are of another driver than modernc.org/sqlite")
	errUndone      = errors.New("a statement that failed has rolled the transaction back")
)

// limits is for how long a guarded transaction keeps others waiting, and waits for
// them.
type limits struct {
	claim time.Duration // for which a claim waits for it
	total time.Duration
	wait  time.Duration // for the lock
}

var defaultLimits = limits{claim: time.Second, total: 10 * time.Second, wait: 10 * time.Second}

// lookForClaims is how often a transaction above its limit looks for a claim.
const lookForClaims = 50 * time.Millisecond

// ClaimAfter is for how long a claim waits for a transaction that [Begin] has begun,
// which is then rolled back. Default 1 s.
func ClaimAfter(d time.Duration) GuardOption { return func(g *guard) { g.limit.claim = d } }

// TotalLimit is for how long a transaction that [Begin] has begun may take, whether a
// claim waits or not. It is then rolled back. Default 10 s.
func TotalLimit(d time.Duration) GuardOption { return func(g *guard) { g.limit.total = d } }

// WaitLimit is for how long [Begin] waits for others who write, or claim. Default
// 10 s; the context may end before, and the connection's busy_timeout is added.
func WaitLimit(d time.Duration) GuardOption { return func(g *guard) { g.limit.wait = d } }

// A Pool is a [*DB], a *[sql.DB], or a type that embeds one.
type Pool interface {
	Conn(ctx context.Context) (*sql.Conn, error)
}

// A Tx is a guarded transaction. Commit or Rollback must be called on it, and not on
// the *sql.Tx in it, which is there for its statements.
type Tx struct {
	*sql.Tx
	guard guard
	conn  *sql.Conn
	ctx   context.Context // of the transaction
	end   context.CancelCauseFunc

	once  sync.Once
	leave func() // lets the next transaction of the DB begin
	begun time.Time

	mu    sync.Mutex
	timer *time.Timer
	stop  func() bool

	passes atomic.Int32 // what may pass the connection's commit hook
}

const (
	passNone   = iota // nothing: the transaction isn't guarded yet, or it has ended
	passCommit        // the transaction's commit, once
	passUndone        // nothing: SQLite has rolled the transaction back by itself
)

// Begin begins a guarded transaction on a connection of its own: it commits only if
// token is the newest of its catalog at the commit. It takes SQLite's lock for writing
// on the catalog's file, whatever _txlock says, and waits for it: for other writers of
// the file, and for a claim.
//
// Until it ends, nobody else writes the catalog: neither another guarded transaction,
// nor this process's own Update. So never wait for an Update inside of it: both would
// wait until [TotalLimit] rolls the transaction back. A claim waits for [ClaimAfter] at
// most, unless this process is stopped: then it fails and names the process.
//
// While it lasts, its connection has the commit and rollback hooks of this package,
// which replace the application's: nothing but the one commit gets through, so that a
// statement behind an automatic rollback is refused, not committed by itself. A
// process that needs those hooks itself calls [Guard].
//
// The errors are those of [Guard].
func Begin(ctx context.Context, pool Pool, token fence.Token, options ...GuardOption) (*Tx, error) {
	t := &Tx{guard: newGuard(options)}
	if err := t.guard.check(token); err != nil {
		return nil, t.guard.fail(err)
	}
	_ = lockByOpenFile() // what follows if it can't: see probeLocks
	if err := t.begin(ctx, pool, token); err != nil {
		return nil, t.guard.fail(err)
	}
	return t, nil
}

func (t *Tx) begin(ctx context.Context, pool Pool, token fence.Token) (err error) {
	bounded, cancel := context.WithTimeout(ctx, t.guard.limit.wait)
	defer cancel()
	if err := t.reserve(bounded, pool); err != nil {
		return err
	}
	t.ctx, t.end = context.WithCancelCause(ctx)
	if err = t.hook(t.mayCommit, t.undone); err == nil {
		err = t.take(bounded, token)
	}
	if err != nil {
		t.finish()
		return err
	}
	t.passes.Store(passCommit)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begun = time.Now()
	t.timer = time.AfterFunc(min(t.guard.limit.claim, t.guard.limit.total), t.watch)
	t.stop = context.AfterFunc(t.ctx, func() {
		_ = t.Tx.Rollback() // database/sql does so too
		t.finish()
	})
	return nil
}

// reserve waits for the transaction's turn, and for a connection.
func (t *Tx) reserve(ctx context.Context, pool Pool) (err error) {
	t.leave = func() {}
	if db, ok := pool.(*DB); ok {
		if t.leave, err = db.queue(ctx); err != nil {
			return err
		}
		if !t.guard.register {
			err = db.knows(ctx, &t.guard)
		}
	}
	if err == nil {
		t.conn, err = pool.Conn(ctx)
	}
	if err != nil {
		t.leave()
	}
	return err
}

// take begins and guards, again and again while others hold the lock.
func (t *Tx) take(ctx context.Context, token fence.Token) error {
	var waited error // what for, when ctx ends within a try
	err := untilFree(ctx, func() error {
		err := t.try(token)
		switch {
		case busy(err):
			waited = err
		case err != nil && ctx.Err() != nil && waited != nil:
			return waited
		}
		return err
	})
	switch {
	case errors.Is(err, errWanted):
		return fmt.Errorf("%w, by %s", err, flockedBy(t.guard.path+claimEnding))
	case busy(err):
		_ = t.conn.QueryRowContext(unbounded, fileSQL, t.guard.schema).Scan(&t.guard.path) // for the text alone
		return fmt.Errorf("%w by %s: %w", errLocked, lockedBy(t.guard.path), err)
	}
	return err
}

// try begins and guards, unless others hold the lock.
func (t *Tx) try(token fence.Token) (err error) {
	if t.Tx, err = t.conn.BeginTx(t.ctx, nil); err != nil {
		return err
	}
	if err = t.guard.take(t.ctx, t.Tx, token); err != nil {
		_ = t.Tx.Rollback() // the first error says more
	}
	return err
}

// Commit commits. The error says so if the transaction was rolled back before, since
// it took too long, or kept a claim waiting.
func (t *Tx) Commit() error { return t.done(t.Tx.Commit) }

// Rollback rolls back.
func (t *Tx) Rollback() error { return t.done(t.Tx.Rollback) }

func (t *Tx) done(how func() error) error {
	undone := t.passes.Load() == passUndone // before: a commit that fails is rolled back as well
	err := how()
	cause := context.Cause(t.ctx)
	t.finish()
	switch {
	case err == nil:
		return nil
	case errors.Is(cause, errGaveWay) || errors.Is(cause, errTooLong):
		return t.guard.fail(fmt.Errorf("%w: %w", cause, err))
	case cause != nil && !errors.Is(err, cause):
		return fmt.Errorf("%w: %w", cause, err)
	case undone && !errors.Is(err, sql.ErrTxDone):
		return t.guard.fail(fmt.Errorf("%w: %w", errUndone, err))
	}
	return err
}

// finish gives the connection back as it was. It may be called more than once.
func (t *Tx) finish() {
	t.once.Do(func() {
		t.mu.Lock()
		if t.stop != nil {
			t.timer.Stop()
			t.stop()
		}
		t.mu.Unlock()
		t.end(sql.ErrTxDone)
		_ = t.hook(nil, nil) // fails on a connection that has ended
		_ = t.conn.Close()   // waits for a rollback under way
		t.leave()
	})
}

// watch ends a transaction that lasts too long.
func (t *Tx) watch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	lasts := time.Since(t.begun)
	switch {
	case t.ctx.Err() != nil:
	case lasts >= t.guard.limit.total:
		t.end(fmt.Errorf("%w: %v, the limit is %v", errTooLong, lasts.Round(time.Millisecond), t.guard.limit.total))
	case lasts >= t.guard.limit.claim && errors.Is(t.guard.noClaim(), errWanted):
		t.end(fmt.Errorf("%w: it has lasted for %v", errGaveWay, lasts.Round(time.Millisecond)))
	default:
		t.timer.Reset(min(lookForClaims, t.guard.limit.total-lasts))
	}
}

func (t *Tx) hook(commit sqlite.CommitHookFn, rollback sqlite.RollbackHookFn) error {
	return t.conn.Raw(func(c any) error {
		h, ok := c.(sqlite.HookRegisterer)
		if !ok {
			return fmt.Errorf("%w: %T", errOtherDriver, c)
		}
		h.RegisterCommitHook(commit)
		h.RegisterRollbackHook(rollback)
		return nil
	})
}

// mayCommit is SQLite's commit hook: what is not 0 makes the commit a rollback.
func (t *Tx) mayCommit() int32 {
	if t.passes.CompareAndSwap(passCommit, passNone) {
		return 0
	}
	return 1
}

// undone is SQLite's rollback hook.
func (t *Tx) undone() { t.passes.CompareAndSwap(passCommit, passUndone) }
