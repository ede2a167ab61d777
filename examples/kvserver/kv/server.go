package kv

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog"
)

// Collection is the name of the catalog's collection that holds the data. A
// client's key is the entry's key, its value the entry's value, byte for byte.
const Collection = "kv"

// Config is how a server behaves. The zero value of a field means its default.
type Config struct {
	// Info returns the fields of INFO's section Fencepost while the server
	// does not lead. By default they say no more than that.
	Info func() []Field

	// Standing says, in a phrase, why this server does not lead and who does.
	// It is asked for every command that is refused, unless Follow was told a
	// reason.
	Standing func() string

	// ConfirmReads makes the server ask the store after each read whether it
	// still held the token.
	ConfirmReads bool

	// MaxBatch and MaxBatchBytes bound the commands that share one Update:
	// their number, and the bytes of their keys and values. Default 128, and
	// 512 KiB. A single command may be larger.
	MaxBatch      int
	MaxBatchBytes int

	// MaxRequest bounds the bytes that one command may have, and those that
	// stand between MULTI and EXEC. Default 128 MiB.
	MaxRequest int

	// DrainTimeout is for how long commands under way may go on once the
	// server stops leading or serving. Those that are cut short are answered
	// UNKNOWN where they may have landed. Default 2 s.
	DrainTimeout time.Duration

	// Logger receives what no client is told. Default: discard.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.MaxBatch = cmp.Or(c.MaxBatch, 128)
	c.MaxBatchBytes = cmp.Or(c.MaxBatchBytes, 512<<10)
	c.MaxRequest = cmp.Or(c.MaxRequest, 128<<20)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 2*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// A Server answers clients. Its methods may be called concurrently.
type Server struct {
	cfg      Config
	data     catalog.Collection[[]byte]
	commands map[string]command
	cursors  *cursors
	started  time.Time

	sessions  atomic.Uint64 // numbers them
	connected atomic.Int64
	processed atomic.Uint64

	mu       sync.RWMutex
	term     *term // nil while not leading
	standing string
}

// New returns a server that does not lead.
func New(cfg Config) *Server {
	return &Server{
		cfg: cfg.withDefaults(), data: catalog.Bytes(Collection), commands: commandTable(),
		cursors: newCursors(maxCursors), started: time.Now(),
	}
}

// Lead starts admitting reads and writes, into c. The caller keeps c open until
// [Server.Follow] has returned.
func (s *Server) Lead(c *catalog.Catalog) {
	t := &term{catalog: c}
	t.ctx, t.cut = context.WithCancelCause(context.Background())
	s.mu.Lock()
	old := s.term
	s.term = t
	s.mu.Unlock()
	old.drain(s.cfg.DrainTimeout)
}

// Follow stops admitting reads and writes, lets those under way finish within
// DrainTimeout, and returns when none is left. Clients are told reason, or what
// Config.Standing says where that is empty, and with a reason the leader's address,
// where there is one.
func (s *Server) Follow(reason, leaderAddr string) {
	if reason != "" && leaderAddr != "" {
		reason += ", at " + leaderAddr
	}
	s.mu.Lock()
	old := s.term
	s.term, s.standing = nil, reason
	s.mu.Unlock()
	old.drain(s.cfg.DrainTimeout)
}

// A term is one time of leading.
type term struct {
	catalog *catalog.Catalog
	ctx     context.Context // ends when commands under way must not wait longer
	cut     context.CancelCauseFunc
	running sync.WaitGroup // batches that were admitted
}

// errDrained is why a command was cut short.
var errDrained = errors.New("the server stops leading")

// drain waits for what was admitted, and cuts it short when timeout is over.
func (t *term) drain(timeout time.Duration) {
	if t == nil {
		return
	}
	defer t.cut(errDrained)
	defer time.AfterFunc(timeout, func() { t.cut(errDrained) }).Stop()
	t.running.Wait()
}

// bound returns a context that ends with ctx and with the term.
func (t *term) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(t.ctx, func() { cancel(context.Cause(t.ctx)) })
	return ctx, func() { stop(); cancel(nil) }
}

// admit returns the term under way, in which the caller runs one batch and
// calls running.Done; or an error that says why there is none.
func (s *Server) admit() (*term, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.term == nil {
		return nil, &notLeading{s.why()}
	}
	s.term.running.Add(1)
	return s.term, nil
}

// why says why the server does not lead. The caller holds mu.
func (s *Server) why() string {
	switch {
	case s.standing != "":
		return s.standing
	case s.cfg.Standing != nil:
		return s.cfg.Standing()
	default:
		return "(it was not asked to lead yet)"
	}
}

// leading returns the catalog of the term under way, or nil.
func (s *Server) leading() *catalog.Catalog {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.term == nil {
		return nil
	}
	return s.term.catalog
}
