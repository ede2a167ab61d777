package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/ownfile"
)

// writer is the one writing connection of a Store, and its file for the lock
// that claims take.
type writer struct {
	db    *sql.DB
	conn  *sql.Conn
	claim *os.File
	files openFiles

	beginTx, commitTx *sql.Stmt
	addLog            *sql.Stmt // nil before the first commit
}

// unbounded is the context of statements inside a transaction: they wait for
// no lock, and to cut one short would only blur what became of it.
var unbounded = context.Background()

var errWriting = errors.New("another write of this process is under way")

// acquire returns the writing connection, and opens it where needed. The
// caller gives it back with release.
func (s *Store) acquire(ctx context.Context) (*writer, error) {
	var w *writer
	select {
	case w = <-s.write:
	default:
		select {
		case w = <-s.write:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", errWriting, ctx.Err())
		}
	}
	if s.isClosed() {
		s.write <- w
		return nil, errClosed
	}
	if gone := s.gone.Load(); gone != nil {
		s.write <- w
		return nil, *gone
	}
	if w != nil {
		return w, nil
	}
	err := untilFree(ctx, func() (err error) {
		if err := s.checkPlace(); err != nil {
			return err
		}
		w, err = s.openWriter(ctx)
		return err
	})
	if err != nil {
		s.write <- nil
		return nil, err
	}
	s.wrote.Store(true)
	return w, nil
}

// release gives the connection back; a broken one is closed, and opened anew by
// the next write.
func (s *Store) release(w *writer, broken bool) {
	if broken {
		if err := w.close(); err != nil {
			s.log.Warn("closing a broken connection failed", "store", s.String(), "err", err)
		}
		w = nil
	}
	s.write <- w
}

// openWriter opens the file for writing, and creates it where there is none.
func (s *Store) openWriter(ctx context.Context) (_ *writer, err error) {
	path := s.path
	w := new(writer)
	defer func() {
		if err != nil {
			_ = w.close() // the first error says more
		}
	}()
	if err := w.ensureFile(ctx, path, s.linked); err != nil {
		return nil, err
	}
	if w.db, err = connect(dsn(path, "mode=rw", "_pragma=busy_timeout(0)")); err != nil {
		return nil, err
	}
	w.db.SetMaxOpenConns(1)
	if w.conn, err = w.db.Conn(ctx); err != nil {
		return nil, err
	}
	// Not a byte of someone else's file is changed, not even its mode.
	if err := w.ensureSchema(ctx); err != nil {
		return nil, err
	}
	for _, pragma := range []string{"journal_mode = WAL", "synchronous = FULL"} {
		if err = w.exec(ctx, "PRAGMA "+pragma); err != nil {
			return nil, err
		}
	}
	if err = w.writable(ctx); err != nil {
		return nil, err
	}
	if err = w.checkpoint(ctx); err != nil {
		return nil, err
	}
	if w.files, err = namedFiles(path); err != nil {
		return nil, err
	}
	if err = oneLibrary(path); err != nil {
		return nil, err
	}
	if w.beginTx, err = w.conn.PrepareContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return nil, err
	}
	if w.commitTx, err = w.conn.PrepareContext(ctx, "COMMIT"); err != nil {
		return nil, err
	}
	if w.claim == nil {
		w.claim, err = ownfile.OpenLock(path+claimEnding, ownfile.Beside(w.files[0].info))
	}
	return w, err
}

// ensureFile makes the file where there is none, but not through a link.
func (w *writer) ensureFile(ctx context.Context, path string, linked bool) error {
	absent, err := isAbsent(path)
	if err != nil || !absent {
		return err
	}
	if linked {
		return fmt.Errorf("%w: a link led to the empty file %s", ownfile.ErrPlanted, path)
	}
	w.claim, err = create(ctx, path)
	return err
}

// ensureSchema refuses an incomplete catalog, and makes one in an empty database:
// one that another program made, or an older build.
func (w *writer) ensureSchema(ctx context.Context) error {
	exists, err := checkSchema(ctx, w.conn)
	if err != nil {
		return err
	}
	if exists {
		return checkUnclaimed(ctx, w.conn)
	}
	if err := w.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	exists, err = checkSchema(ctx, w.conn)
	if err == nil && !exists {
		err = w.exec(unbounded, createSQL)
	}
	if err == nil {
		err = w.exec(unbounded, "COMMIT")
	}
	if err != nil {
		_ = w.rollback() // the connection is closed
	}
	return err
}

// writable returns SQLITE_READONLY if SQLite could open the file for reading
// only, to which it falls back by itself. BEGIN IMMEDIATE then begins to read,
// and a checkpoint fails as if the disk did; so a write is tried, and undone.
func (w *writer) writable(ctx context.Context) error {
	err := w.exec(ctx, "BEGIN IMMEDIATE")
	if busy(err) {
		return nil // another connection writes, for which one that reads would not wait
	}
	if err != nil {
		return err
	}
	err = w.exec(unbounded, "PRAGMA user_version = 0")
	return cmp.Or(err, w.exec(unbounded, "ROLLBACK"))
}

// checkpointPatience is how long readers of an old snapshot are waited for.
const checkpointPatience = time.Second

// checkpoint moves what an earlier process left in the WAL into the file, before
// anything is written: where its sync had failed, a read shows what a loss of
// power would still take away. A reader of an old snapshot can hold back a part
// of that; it is waited for, but not for ever.
func (w *writer) checkpoint(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkpointPatience)
	defer cancel()
	err := untilFree(ctx, w.moveWAL)
	if busy(err) {
		return nil
	}
	return err
}

// moveWAL moves what is in the WAL into the file. It returns errReaders if a part
// of it can't be moved for now.
func (w *writer) moveWAL() error { return w.pragmaCheckpoint("PASSIVE") }

// emptyWAL does the same and empties the WAL, if no other process is writing or
// reading.
func (w *writer) emptyWAL() error { return w.pragmaCheckpoint("TRUNCATE") }

func (w *writer) pragmaCheckpoint(how string) error {
	var blocked, frames, moved int
	if err := w.conn.QueryRowContext(unbounded, "PRAGMA wal_checkpoint("+how+")").Scan(&blocked, &frames, &moved); err != nil {
		return err
	}
	if moved < frames || frames < 0 && blocked != 0 || blocked != 0 && how == "PASSIVE" {
		return fmt.Errorf("%w: %d of the %d pages in the WAL are in the file", errReaders, max(moved, 0), max(frames, 0))
	}
	return nil
}

// errReaders counts as busy.
var errReaders = errors.New("readers of an old snapshot hold back the checkpoint")

// finish moves all that is in the WAL into the file, so that the file is all of
// the catalog, and empties the WAL. If others write meanwhile, the last of them
// does so again.
func (w *writer) finish(ctx context.Context, path string) error {
	if err := w.files.moved(); err != nil {
		return err
	}
	if err := w.reconcile(ctx, path); err != nil {
		return err
	}
	return untilFree(ctx, w.emptyWAL)
}

func (w *writer) close() error {
	var errs []error
	// Before the connection: one with statements left keeps the file open.
	for _, stmt := range []*sql.Stmt{w.beginTx, w.commitTx, w.addLog} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	if w.conn != nil {
		errs = append(errs, w.conn.Close())
	}
	if w.db != nil {
		errs = append(errs, w.db.Close())
	}
	if w.claim != nil {
		errs = append(errs, w.claim.Close())
	}
	return errors.Join(errs...)
}

func (w *writer) exec(ctx context.Context, query string, args ...any) error {
	_, err := w.conn.ExecContext(ctx, query, args...)
	return err
}

// begin starts a write transaction, and so takes SQLite's write lock.
func (w *writer) begin(ctx context.Context, path string, ready func() error) error {
	return w.whenFree(ctx, path, ready, func() error {
		_, err := w.beginTx.ExecContext(unbounded)
		return err
	})
}

// whenFree runs a statement that takes SQLite's write lock, after ready. It
// waits for that lock until ctx ends, and then says who holds it. Where that
// was so, the statement has done nothing.
func (w *writer) whenFree(ctx context.Context, path string, ready, statement func() error) error {
	err := untilFree(ctx, func() error {
		if err := ready(); err != nil {
			return err
		}
		if err := w.files.unsound(); err != nil {
			return err
		}
		return statement()
	})
	if busy(err) {
		return fmt.Errorf("%w by %s: %w", errLocked, lockedBy(path), err)
	}
	return err
}

// inTransaction runs fn in a write transaction, after ready.
func (w *writer) inTransaction(ctx context.Context, path string, ready, fn func() error) error {
	if err := w.begin(ctx, path, ready); err != nil {
		return err
	}
	err := fn()
	if err == nil {
		_, err = w.commitTx.ExecContext(unbounded)
	}
	if err != nil {
		_ = w.rollback() // the first error says more
	}
	return err
}

// rollback ends a transaction without a trace. It reports whether the
// connection is fit for another one.
func (w *writer) rollback() (fit bool) {
	return w.exec(unbounded, "ROLLBACK") == nil
}

// transact runs fn in a write transaction that gives way to claims.
func (s *Store) transact(ctx context.Context, op string, fn func(w *writer) error) error {
	w, err := s.acquire(ctx)
	if err != nil {
		return s.wrap(op, err, false)
	}
	if err := w.begin(ctx, s.path, w.noClaim); err != nil {
		s.release(w, readOnly(err))
		return s.wrap(op, err, false)
	}
	if err := fn(w); err != nil {
		s.release(w, !w.rollback())
		return s.wrap(op, err, false)
	}
	broken, err := s.commit(w, op)
	s.release(w, broken)
	return err
}

// commit ends the transaction, and says whether the connection is unfit for
// another one.
func (s *Store) commit(w *writer, op string) (broken bool, err error) {
	if _, err = w.commitTx.ExecContext(unbounded); err == nil {
		return false, s.wrap(op, w.landed(), true)
	}
	err = s.wrap(op, err, true)
	return !w.rollback() || driver.OutcomeOf(err) == driver.Unknown, err
}

// landed returns an error where a commit went into a file that nobody else sees.
func (w *writer) landed() error {
	if err := w.files.moved(); err != nil {
		return fmt.Errorf("%w: %w", errMovedCommit, err)
	}
	return nil
}

func (s *Store) checkSize(op string, size, limit int) error {
	if size <= limit {
		return nil
	}
	return &driver.Error{Store: s.String(), Op: op, Err: fmt.Errorf("%w: %d bytes, the limit is %d", driver.ErrTooLarge, size, limit)}
}
