package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/gather"
)

// A Server is a database as one process reaches it: one set of connections,
// over which any number of its catalogs are opened. Its methods may be called
// concurrently.
//
// The set is Config.MaxConns connections for commits, claims and logs, two for
// heads and for wake-ups, and one that listens for all catalogs: seven by default, whether they
// serve one catalog or thousands. What catalogs ask of the head at the same time
// is asked in one statement. Package catalog polls all catalogs of a process at
// the same instants, so that the polls of 1,000 idle ones are about 20
// statements a second at its default PollInterval of 250 ms.
//
// No more than MaxConns commits are under way at once, and half as many claims,
// so that claims which wait for a stopped process don't keep the commits of
// other catalogs waiting.
type Server struct {
	links *links

	mu     sync.Mutex
	stores map[*Store]struct{} // nil after Close
}

// Connect returns the server of a DSN, which is as [Open] has it, but names no
// catalog. Like Open it does not need the server yet.
func Connect(ctx context.Context, dsn string, cfg Config) (*Server, error) {
	named, conns, err := parseDSN(dsn)
	if named != "" {
		err = errors.Join(err, errors.New("the DSN names a catalog: leave it to Server.Open"))
	}
	l, err := newLinks(ctx, conns, cfg, err)
	if err != nil {
		return nil, err
	}
	return &Server{links: l, stores: map[*Store]struct{}{}}, nil
}

// Open returns the store of a catalog. Its Close leaves the server's
// connections open. An error is as that of the function [Open].
func (s *Server) Open(ctx context.Context, catalog string) (*Store, error) {
	if err := checkCatalog(catalog); err != nil {
		return nil, openError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stores == nil {
		return nil, openError(errServerClosed)
	}
	store := newStore(ctx, s.links, catalog)
	store.release = func() { s.forget(store) }
	s.stores[store] = struct{}{}
	return store, nil
}

func (s *Server) forget(store *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stores, store)
}

// Close closes the stores that are open still, and then every connection that
// the server made.
func (s *Server) Close() error {
	s.mu.Lock()
	stores := s.stores
	s.stores = nil
	s.mu.Unlock()
	if stores == nil {
		return nil
	}
	for store := range stores {
		store.shut()
	}
	s.links.close()
	return nil
}

// links are the connections of a Server, or of a Store that has its own.
type links struct {
	config   Config
	log      *slog.Logger
	to       *pgx.ConnConfig
	before   func(context.Context, *pgx.ConnConfig) error // of the configuration, before each connection
	known    atomic.Pointer[sightings]
	several  bool                      // the DSN names more than one host
	met      atomic.Bool               // a host has answered, and no connection has failed since
	looked   atomic.Pointer[time.Time] // when the hosts were looked at last; nil before
	looks    *gather.Group[struct{}, []sight]
	pool     *pgxpool.Pool // for commits, claims and the log
	ownPool  bool          // close closes it
	liveness *pgxpool.Pool // for the head, for wake-ups, and to ask who blocks a claim
	ear      *ear
	notifier *notifier
	heads    *gather.Group[*Store, state]
	turns    chan struct{} // one for each claim under way

	unprepared atomic.Bool // a pooler stands between: no prepared statements

	looksMu    sync.Mutex // of the next
	looksEnded bool       // no look begins any more
	looking    sync.WaitGroup
	looksRoot  context.Context
	endLooking context.CancelFunc

	warming sync.Mutex // of the next
	warmed  time.Time  // when enough connections were warm
}

// newLinks returns the links that cfg and a DSN describe. It names the mistakes
// in cfg beside those that were found in the DSN.
func newLinks(ctx context.Context, conns *pgxpool.Config, cfg Config, mistakes error) (*links, error) {
	if err := errors.Join(cfg.validate(), mistakes); err != nil {
		return nil, openError(err)
	}
	cfg = cfg.withDefaults()
	l := &links{config: cfg, log: cfg.Logger, pool: cfg.Pool}
	if l.pool != nil {
		conns = l.pool.Config()
	}
	l.know(newSightings())
	readyConfig(conns, cfg, l.known.Load())
	l.to, l.before = conns.ConnConfig.Copy(), conns.BeforeConnect
	l.several = len(hostsOf(l.to)) > 1
	l.looksRoot, l.endLooking = context.WithCancel(context.WithoutCancel(ctx))
	l.looks = gather.New(1, looksAtOnce, l.lookOnce, l.lookForAll)
	l.ear = newEar(ctx, l.dial)
	l.notifier = newNotifier(ctx, l.log, l.sendNotifications)
	l.heads = gather.New(livenessConns, headsAtOnce, lookAlone, l.lookTogether)
	l.turns = make(chan struct{}, max(conns.MaxConns/2, 1))
	if err := l.openPools(ctx, conns); err != nil {
		return nil, openError(err)
	}
	return l, nil
}

// readyConfig sets what the own connections need and the DSN did not say.
func readyConfig(conns *pgxpool.Config, cfg Config, known *sightings) {
	params := conns.ConnConfig.RuntimeParams
	if params["application_name"] == "" {
		params["application_name"] = "fencepost"
	}
	if conns.ConnConfig.ConnectTimeout == 0 {
		conns.ConnConfig.ConnectTimeout = defaultConnectTimeout
	}
	if cfg.Pool == nil {
		conns.MaxConns, conns.MinConns, conns.MinIdleConns = cfg.MaxConns, 0, 0
		prepare(conns, known)
	}
	if conns.ConnConfig.AfterConnect != nil { // else the pool that was handed in is refused
		ownSession(&conns.ConnConfig.Config)
	}
}

func (l *links) openPools(ctx context.Context, conns *pgxpool.Config) error {
	live := conns.Copy()
	live.MaxConns, live.MinConns, live.MinIdleConns = livenessConns, 0, 0
	live.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	var err error
	if l.liveness, err = pgxpool.NewWithConfig(ctx, live); err != nil {
		return err
	}
	if l.pool != nil {
		return nil
	}
	l.ownPool = true
	conns.ShouldPing = pingsUsable
	if l.pool, err = pgxpool.NewWithConfig(ctx, conns); err != nil {
		l.liveness.Close()
	}
	return err
}

// pingsUsable has an idle connection pinged, as pools do, but not one that must
// not be used any more: if its server has vanished, the ping takes all the time
// of the call.
func pingsUsable(ctx context.Context, p pgxpool.ShouldPingParams) bool {
	d := dialedOf(p.Conn.PgConn())
	return p.IdleDuration > time.Second && (d == nil || !d.memory.stale(ctx, d))
}

// close closes every connection but those of a pool that was handed in. It
// waits for calls under way, and for a moment for wake-ups that are to be sent.
// The stores are closed before.
func (l *links) close() {
	l.notifier.close()
	l.ear.close()
	l.heads.Close()
	l.known.Load().disuse(l)
	l.endLooks()
	l.liveness.Close()
	if l.ownPool {
		l.pool.Close()
	}
}

// takeTurn takes a connection for a claim, of which only so many may be under
// way, and looks at all hosts before. The caller gives it back by endTurn.
func (s *Store) takeTurn(ctx context.Context) (*pgxpool.Conn, error) {
	select {
	case s.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the claims of other catalogs: %w", ctx.Err())
	case <-s.root.Done():
		return nil, errClosed
	}
	if err := s.survey(ctx); err != nil {
		<-s.turns
		return nil, err
	}
	conn, err := s.acquire(ctx, s.pool)
	if err != nil {
		<-s.turns
	}
	return conn, err
}

func (s *Store) endTurn(conn *pgxpool.Conn) {
	s.give(conn)
	<-s.turns
}

// args returns what pgx takes after the text of a statement. Behind a pooler
// it asks for a form of statement that needs no session.
func (l *links) args(args ...any) []any {
	if l.unprepared.Load() {
		return append([]any{pgx.QueryExecModeExec}, args...)
	}
	return args
}

var errServerClosed = errors.New("the server is closed")

// openError returns an error of Open or Connect.
func openError(err error) error {
	class := misconfigured("")
	if errors.Is(err, errServerClosed) {
		class = callers()
	}
	return &driver.Error{Class: class, Store: "postgres", Op: "open", Err: err}
}

// checkCatalog refuses what can't name a catalog. Every guarded transaction asks.
func checkCatalog(name string) error {
	const most = 63
	other := func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789_-", r) }
	if name != "" && len(name) <= most && !strings.ContainsFunc(name, other) {
		return nil
	}
	return errors.New("the catalog's name is " + quote(name) + ", want 1 to 63 of a-z, 0-9, _ and -")
}

// quote returns a name as it is to be shown.
func quote(name string) string {
	const most = 100
	if len(name) > most {
		name = name[:most]
	}
	return `"` + strings.ToValidUTF8(name, "?") + `"`
}
