// Package sqlite keeps a catalog in one SQLite file, for one host and any
// number of its processes.
//
// The file is in WAL mode with full sync: a commit that was acknowledged
// survives the loss of power as far as the disk keeps its promises. The file is
// created by the first claim or the first note, never by a read, and at once as
// a whole. A writer that is closed moves all that is in the WAL into the file, so
// that a copy of the file alone is whole after a clean end. A file that was cut
// off from a WAL with its first claim is incomplete, and is refused as corrupt.
// What a copy lacks besides can't be told from the file: see docs/rollback.md.
//
// A new file gets the owner and mode of its folder, and the files beside it those
// of the file, so that the service can use what root has created. A link that is
// in the place of one of these files is not followed; the path that is given to
// Open may be a link to a file that is there.
//
// Beside the file lie SQLite's own -wal and -shm files, and a -claim file, whose lock
// tells a holder to let a claim go first. It holds no data, but for a request to a
// claimer to give way.
//
// The catalog is no other than what the file says; the package decides nothing
// about tokens. A process that is stopped in the middle of a write blocks all others
// until it is continued or killed; they fail within their bounds and name it.
//
// # One name, and a file system that locks
//
// SQLite finds the files beside the database by its name. A database that has a
// second name, by a hard link or because the file is mounted by itself, is
// refused; a folder that is seen under two paths is fine. The file systems that
// are known to keep SQLite's locks are a list; others are refused, unless
// [Config.TrustFileSystem] is set.
//
// # Locks, and the rest of the process
//
// The kernel drops a POSIX lock when its process closes any descriptor of the
// file, opened by whomever. So only SQLite opens the database file and its -shm.
// On Linux, [Open] makes SQLite lock database files by their open files (OFD)
// instead; then an application may open and close the database file, to copy
// it. Elsewhere, or if it used another SQLite database before the first Open, it
// must never do that: two writers could follow. It must never open and close
// -shm, whose locks are POSIX's everywhere, nor use another library of SQLite on
// the file. [Store.Probe] and [Store.Risks] say which locks there are.
//
// # Guards
//
// A transaction of the application, in tables of its own in the catalog's file or in
// another file on the same connection, is guarded by the token if [Begin] begins it,
// or [Guard] guards it: it holds SQLite's lock for writing on the catalog's file from
// before the token is compared until behind its commit. Only the application's file is
// written, so nothing is torn between the two. A claim waits for at most a second for
// one that Begin has begun, and names a process that is stopped inside of one. A
// process must not wait for its own catalog inside of one.
//
// Other languages read the view fencepost_token (generation, epoch, token, revision,
// claim), which has the newest token, in a transaction that BEGIN IMMEDIATE has begun,
// and fencepost_issued, which has the same columns for every token that was ever
// issued. Both are frozen.
//
// Two libraries of SQLite in one process damage a file that both have open. On Linux
// a claim, a new connection and [Guard] refuse such a file, and so does [Begin] on a
// [DB] if a known one is linked. Elsewhere nobody can tell.
//
// # What it costs
//
// A catalog that is held, or followed, and idle keeps two connections, which
// are six open files, and while it is watched one instance of inotify. Linux gives a
// user 128 of these (fs.inotify.max_user_instances): with more catalogs than that,
// raise it, or the later ones only poll.
package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver that database/sql opens

	"github.com/fencepost/fencepost/catalog/driver"
)

// Limits of one catalog. SQLite itself takes about 1 GB in one value.
const (
	MaxPayload = 64 << 20
	MaxNote    = 1 << 20
)

// Config is how a Store behaves. The zero value of a field means its default.
type Config struct {
	// Logger receives what no caller is told. Default: discard.
	Logger *slog.Logger

	// TrustFileSystem allows a file system that is not known to be good for
	// SQLite, such as FUSE. Set it only if every process that can see the file
	// shares locks and mapped memory through it; otherwise two processes write
	// at the same time. The probe goes on warning.
	TrustFileSystem bool
}

// A Store is a [driver.Store] over one SQLite file.
type Store struct {
	path   string
	linked bool // the path that was given was that of a symbolic link to the file
	log    *slog.Logger
	trusts bool         // whatever file system it is
	write  chan *writer // holds the one writing connection, nil before it is opened

	heads chan *headReader // holds the connection that reads the head, nil before it is opened

	ready atomic.Bool           // the file was seen to hold a catalog
	wrote atomic.Bool           // the file was opened for writing
	gone  atomic.Pointer[error] // why no name is the one that was opened; stays, since connections that are left read on

	root context.Context // of what is shown and watched; ends in Close
	end  context.CancelFunc

	mu     sync.Mutex
	reads  *sql.DB     // nil until the file was first seen
	file   os.FileInfo // which file that was
	closed bool
}

var (
	_ driver.Store       = (*Store)(nil)
	_ driver.Watcher     = (*Store)(nil)
	_ driver.Warmer      = (*Store)(nil)
	_ driver.NoteBatcher = (*Store)(nil)
)

// Open returns a Store over the file at path. It opens nothing: the file is
// looked at by the first call, and created by the first write. Its folder must
// exist by then. Symbolic links are followed once, here.
//
// The first call in a process makes all of SQLite in it lock by open files,
// where the system can; see the package's documentation.
func Open(path string, cfg Config) (*Store, error) {
	if path == "" {
		return nil, errors.New("sqlite: no path given")
	}
	own, linked, err := resolve(path)
	if err != nil {
		return nil, (&Store{path: path}).wrap("open", err, false)
	}
	_ = lockByOpenFile() // what follows if it can't: see probeLocks
	s := &Store{
		path:   own,
		linked: linked,
		log:    cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		trusts: cfg.TrustFileSystem,
		write:  make(chan *writer, 1),
		heads:  make(chan *headReader, 1),
	}
	s.root, s.end = context.WithCancel(context.Background())
	s.write <- nil
	s.heads <- nil
	return s, nil
}

// String returns sqlite: and the file's absolute path.
func (s *Store) String() string { return "sqlite:" + s.path }

// Limits returns [MaxPayload] and [MaxNote].
func (s *Store) Limits() driver.Limits { return driver.Limits{Payload: MaxPayload, Note: MaxNote} }

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// errAppeared means that a database was made since somebody saw that there was
// none. No caller of the package gets it.
var errAppeared = errors.New("the database was made meanwhile")

// checkAbsent says whether it is right that there was no file, or an empty one,
// when the caller looked: its folder must be there, and a WAL, which holds commits,
// must not. If another process has made the two since, it returns errAppeared.
func checkAbsent(path string) error {
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return err
	}
	if wal, err := os.Stat(path + "-wal"); err == nil && wal.Size() > 0 {
		if info, err := os.Lstat(path); err == nil && info.Size() > 0 {
			return errAppeared
		}
		return fmt.Errorf("%w: there is a WAL of %d bytes, and no database file beside it", driver.ErrCorrupt, wal.Size())
	}
	return nil
}

var errClosed = errors.New("the store is closed")

var errWatchEnded = errors.New("the kernel's events ended")

// reader returns the connections for reading, or nil where there is no file.
func (s *Store) reader() (*sql.DB, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if db, err := s.lookReader(); !errors.Is(err, errAppeared) {
			return db, err
		}
	}
}

func (s *Store) lookReader() (*sql.DB, error) {
	if s.closed {
		return nil, errClosed
	}
	if gone := s.gone.Load(); gone != nil {
		return nil, *gone
	}
	info, err := os.Lstat(s.path)
	if err == nil {
		err = checkFile(s.path, info)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.reads == nil:
		return nil, cmp.Or(s.checkPlace(), checkAbsent(s.path))
	case errors.Is(err, fs.ErrNotExist), err == nil && s.file != nil && !os.SameFile(s.file, info):
		return nil, errMoved
	case err != nil:
		return nil, err
	case info.Size() == 0:
		return nil, cmp.Or(s.checkPlace(), checkAbsent(s.path)) // created, and nothing was committed yet
	case s.reads != nil:
		return s.reads, nil
	}
	if err := s.checkPlace(); err != nil {
		return nil, err
	}
	db, err := connect(dsn(s.path, "mode=ro", "_pragma=query_only(1)"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(5) // one of them reads the head, and nothing else
	db.SetMaxIdleConns(4)
	s.reads, s.file = db, info
	return db, nil
}

// dsn names the file at path for the driver, whatever characters it has.
func dsn(path string, options ...string) string {
	name := "file:" + (&url.URL{Path: path}).EscapedPath()
	for i, o := range options {
		name += string("?&"[min(i, 1)]) + o
	}
	return name
}

// query calls fn with a connection for reading, or not at all where the file
// holds no catalog yet. It tries again while the file is busy.
func (s *Store) query(ctx context.Context, op string, fn func(*sql.DB) error) error {
	err := untilFree(ctx, func() error {
		db, err := s.reader()
		if err != nil || db == nil {
			return err
		}
		if !s.ready.Load() {
			exists, err := checkSchema(ctx, db)
			if err != nil || !exists {
				return err
			}
			s.ready.Store(true)
		}
		return fn(db)
	})
	return s.wrap(op, err, false)
}

// untilFree calls fn again, after a short wait, while it fails because the file
// is locked by another connection and ctx has not ended.
func untilFree(ctx context.Context, fn func() error) error {
	wait := 200 * time.Microsecond
	var err error
	for {
		if ended := ctx.Err(); ended != nil {
			return cmp.Or(err, ended)
		}
		if err = fn(); !busy(err) {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
		wait = min(2*wait, 5*time.Millisecond)
	}
}
