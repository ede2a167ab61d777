package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
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
)

// A Store keeps one catalog in a PostgreSQL database. It implements
// [driver.Store] and [driver.Watcher].
type Store struct {
	name     string
	catalog  string
	config   Config
	log      *slog.Logger
	pool     *pgxpool.Pool   // for commits, claims and the log
	ownPool  bool            // Close closes it
	liveness *pgxpool.Pool   // for the head, and to ask who blocks a claim
	watching *pgx.ConnConfig // for the connection that listens
	quiet    time.Duration   // after which that one is looked at

	unprepared atomic.Bool           // a pooler stands between: no prepared statements
	timeline   atomic.Uint32         // the highest one seen
	place      atomic.Pointer[place] // looked at last
	claimMemo  driver.ClaimMemo

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
// Open does not need the server: connections are made when they are used. An
// error of it names every mistake at once and has disposition halt; no error
// of a Store ever holds a password.
func Open(ctx context.Context, dsn string, cfg Config) (*Store, error) {
	catalog, conns, err := parseDSN(dsn)
	if err := errors.Join(cfg.validate(), err); err != nil {
		return nil, &driver.Error{Class: misconfigured(""), Store: "postgres", Op: "open", Err: err}
	}
	cfg = cfg.withDefaults()
	s := &Store{catalog: catalog, config: cfg, log: cfg.Logger, pool: cfg.Pool, quiet: quietPeriod, claims: map[*claiming]struct{}{}}
	if s.pool != nil {
		conns = s.pool.Config()
	}
	s.root, s.end = context.WithCancel(context.WithoutCancel(ctx))
	readyConfig(conns, cfg)
	s.name = storeName(conns.ConnConfig, catalog)
	if err := s.openPools(ctx, conns); err != nil {
		s.end()
		return nil, s.fail("open", err, notSent)
	}
	return s, nil
}

// readyConfig sets what the store's own connections need and the DSN did not
// say.
func readyConfig(conns *pgxpool.Config, cfg Config) {
	params := conns.ConnConfig.RuntimeParams
	if params["application_name"] == "" {
		params["application_name"] = "fencepost"
	}
	if conns.ConnConfig.ConnectTimeout == 0 {
		conns.ConnConfig.ConnectTimeout = defaultConnectTimeout
	}
	if cfg.Pool == nil {
		conns.MaxConns, conns.MinConns, conns.MinIdleConns = cfg.MaxConns, 0, 0
		Prepare(conns)
	}
}

func (s *Store) openPools(ctx context.Context, conns *pgxpool.Config) error {
	s.watching = conns.ConnConfig.Copy()
	live := conns.Copy()
	live.MaxConns, live.MinConns, live.MinIdleConns = livenessConns, 0, 0
	live.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	var err error
	if s.liveness, err = pgxpool.NewWithConfig(ctx, live); err != nil {
		return err
	}
	if s.pool != nil {
		return nil
	}
	s.ownPool = true
	if s.pool, err = pgxpool.NewWithConfig(ctx, conns); err != nil {
		s.liveness.Close()
	}
	return err
}

// String names server, database and catalog, such as
// "postgres://db1:5432/app?catalog=main". It never holds a secret.
func (s *Store) String() string { return s.name }

// Limits returns 64 MiB for a payload and 1 MiB for a note.
func (s *Store) Limits() driver.Limits { return driver.Limits{Payload: maxPayload, Note: maxNote} }

// Close ends the watchers and the claims under way, which the server then rolls
// back, and closes every connection that the store made. It waits for calls
// under way; a pool that was handed in stays open.
func (s *Store) Close() error {
	s.mu.Lock()
	claims := s.claims
	done := s.closed
	s.claims, s.closed = nil, true
	s.mu.Unlock()
	if done {
		return nil
	}
	s.end()
	for c := range claims {
		c.cut()
	}
	s.watchers.Wait()
	s.liveness.Close()
	if s.ownPool {
		s.pool.Close()
	}
	return nil
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
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("getting a connection: %w", err)
	}
	if !prepared(conn.Conn().PgConn()) {
		conn.Release()
		return nil, errUnprepared
	}
	return conn, nil
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

// args returns what pgx takes after the text of a statement. Behind a pooler
// it asks for a form of statement that needs no session.
func (s *Store) args(args ...any) []any {
	if s.unprepared.Load() {
		return append([]any{pgx.QueryExecModeExec}, args...)
	}
	return args
}

// fail returns err, classified, as an error of operation op.
func (s *Store) fail(op string, err error, sent sent) error {
	var known *driver.Error
	if errors.As(err, &known) {
		return err
	}
	if poolerBetween(err) && !s.unprepared.Swap(true) {
		s.log.Info("a pooler stands between here and the server: prepared statements are not used any more", "store", s.name)
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
