package postgres

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/catalog/driver"
)

// The sizes that a Store takes: far below what PostgreSQL could, since every
// holder and follower keeps the data in memory.
const (
	maxPayload = 64 << 20
	maxNote    = 1 << 20
)

var (
	_ driver.Store   = (*Store)(nil)
	_ driver.Watcher = (*Store)(nil)
	_ driver.Warmer  = (*Store)(nil)
)

// A Store keeps one catalog in a PostgreSQL database. It implements
// [driver.Store] and [driver.Watcher].
type Store struct {
	*links

	name    string
	catalog string
	release func() // what Close does besides: closes the links, or takes leave of them

	place     atomic.Pointer[place] // looked at last
	claimMemo driver.ClaimMemo

	root context.Context // of the watchers; ends in Close
	end  context.CancelFunc

	mu       sync.Mutex
	closed   bool
	claims   map[*claiming]struct{} // under way
	watchers sync.WaitGroup
}

// Open returns the store of a catalog. The DSN is a URL,
//
//	postgres://user:password@host:port/database?catalog=name&sslmode=verify-full
//
// whose parameter catalog (default "main"; 1 to 63 of a-z, 0-9, _ and -) names
// the catalog within the database. All other parameters, and the environment
// (PGPASSWORD, PGPASSFILE, PGHOST and so on), are as pgx and libpq have them.
//
// Open does not need the server: connections are made when they are used. They
// are the store's own: for many catalogs of one database, see [Connect]. An
// error of Open names every mistake at once and has disposition halt; no error
// of a Store ever holds a password.
func Open(ctx context.Context, dsn string, cfg Config) (*Store, error) {
	catalog, conns, err := parseDSN(dsn)
	l, err := newLinks(ctx, conns, cfg, err)
	if err != nil {
		return nil, err
	}
	s := newStore(ctx, l, cmp.Or(catalog, "main"))
	s.release = l.close
	return s, nil
}

func newStore(ctx context.Context, l *links, catalog string) *Store {
	s := &Store{links: l, name: storeName(l.to, catalog), catalog: catalog, claims: map[*claiming]struct{}{}}
	s.root, s.end = context.WithCancel(context.WithoutCancel(ctx))
	return s
}

// String names server, database and catalog, such as
// "postgres://db1:5432/app?catalog=main". It never holds a secret.
func (s *Store) String() string { return s.name }

// Limits returns 64 MiB for a payload and 1 MiB for a note.
func (s *Store) Limits() driver.Limits { return driver.Limits{Payload: maxPayload, Note: maxNote} }

// Close ends the watchers and the claims under way, which the server then rolls
// back, and closes every connection that the store made. It waits for calls
// under way, and up to a second for the wake-up of its last claim; a pool that was handed in, and the connections of a [Server], stay
// open.
func (s *Store) Close() error {
	if s.shut() {
		s.release()
	}
	return nil
}

// shut ends what the store does, and reports whether it had not been ended
// before.
func (s *Store) shut() bool {
	s.mu.Lock()
	claims := s.claims
	done := s.closed
	s.claims, s.closed = nil, true
	s.mu.Unlock()
	if done {
		return false
	}
	s.end()
	for c := range claims {
		c.cut()
	}
	s.watchers.Wait()
	return true
}

var (
	errClosed     = errors.New("the store is closed")
	errUnprepared = errors.New("the pool's configuration was not passed to postgres.Prepare before the pool was made")
	errMisuse     = errors.New("the driver was called against its contract")
)

// acquire takes a connection out of the pool. Whoever takes one gives it back
// by give.
func (s *Store) acquire(ctx context.Context, pool *pgxpool.Pool) (*pgxpool.Conn, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	return s.links.acquire(ctx, pool)
}

func (l *links) acquire(ctx context.Context, pool *pgxpool.Pool) (*pgxpool.Conn, error) {
	l.meet(ctx)
	for {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			l.met.Store(false)
			return nil, fmt.Errorf("getting a connection: %w", err)
		}
		pg := conn.Conn().PgConn()
		if !prepared(pg) {
			conn.Release()
			return nil, errUnprepared
		}
		d := dialedOf(pg)
		l.know(d.memory)
		if d.memory.stale(ctx, d) {
			hangUp(conn.Conn())
			give(conn)
			continue
		}
		if pooled(pg) {
			l.doWithout()
		}
		return conn, nil
	}
}

// give returns a connection to its pool. After one that has failed, the hosts are
// looked at before another is taken.
func (l *links) give(conn *pgxpool.Conn) {
	if conn.Conn().IsClosed() {
		l.met.Store(false)
	}
	give(conn)
}

// doWithout prepares no statements any more.
func (l *links) doWithout() {
	if !l.unprepared.Swap(true) {
		l.log.Info("a pooler stands between here and the server: prepared statements are not used any more", "store", storeName(l.to, "*"))
	}
}

// give returns a connection to its pool. A broken one is taken out at once:
// else it would fill a place for as long as pgx waits for a server that no
// longer answers, which is up to 15 s.
func give(conn *pgxpool.Conn) {
	if conn.Conn().IsClosed() {
		conn.Hijack()
		return
	}
	conn.Release()
}

// fail returns err, classified, as an error of operation op.
func (s *Store) fail(op string, err error, sent sent) error {
	var known *driver.Error
	if errors.As(err, &known) {
		return err
	}
	if poolerBetween(err) {
		s.doWithout()
	}
	class, is := classify(err, sent)
	if is != nil && !errors.Is(err, is) {
		err = fmt.Errorf("%w: %w", is, err)
	}
	return &driver.Error{Class: class, Store: s.name, Op: op, Err: err}
}

// lockKey returns the key of an advisory lock. It is frozen: builds of
// different versions exclude each other by it.
func lockKey(name string) int64 {
	sum := sha256.Sum256([]byte("fencepost lock: " + name))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// channel returns the name of the channel on which a catalog's writers notify
// its watchers. PostgreSQL takes up to 63 bytes.
func channel(catalog string) string {
	const prefix, longest = "fencepost:", 63
	if len(prefix+catalog) <= longest {
		return prefix + catalog
	}
	sum := sha256.Sum256([]byte(catalog))
	return prefix + hex.EncodeToString(sum[:16])
}

// checkSize refuses what is above a limit, before anything is sent.
func checkSize(what string, size, limit int) error {
	if size > limit {
		return fmt.Errorf("%w: %s has %d bytes, the limit is %d", driver.ErrTooLarge, what, size, limit)
	}
	return nil
}
