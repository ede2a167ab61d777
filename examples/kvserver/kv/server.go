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

	// HoldTimeout is for how long a command is held back, or sent again to who
	// is to lead, from when it came until it is refused. Default 10 s.
	HoldTimeout time.Duration

	// ForwardTimeout is how long another server may take to answer what was
	// forwarded to it. What it took by then has the answer UNKNOWN. Default 5 s.
	ForwardTimeout time.Duration

	// Logger receives what no client is told. Default: discard.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.MaxBatch = cmp.Or(c.MaxBatch, 128)
	c.MaxBatchBytes = cmp.Or(c.MaxBatchBytes, 512<<10)
	c.MaxRequest = cmp.Or(c.MaxRequest, 128<<20)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 2*time.Second)
	c.HoldTimeout = cmp.Or(c.HoldTimeout, 10*time.Second)
	c.ForwardTimeout = cmp.Or(c.ForwardTimeout, 5*time.Second)
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
	leader   string        // the client address of who leads, where commands are forwarded to it
	changed  chan struct{} // closed and replaced when any of these changes
	holding  bool          // commands are held back
}

// New returns a server that does not lead.
func New(cfg Config) *Server {
	return &Server{
		cfg: cfg.withDefaults(), data: catalog.Bytes(Collection), commands: commandTable(),
		cursors: newCursors(maxCursors), started: time.Now(), changed: make(chan struct{}),
	}
}

// Lead starts admitting reads and writes, into c; what was held back goes on. The
// caller keeps c open until [Server.Hold] or [Server.Follow] has returned.
func (s *Server) Lead(c *catalog.Catalog) {
	t := &term{catalog: c}
	t.ctx, t.cut = context.WithCancelCause(context.Background())
	s.change(func() { s.term, s.holding, s.leader = t, false, "" })
}

// Hold holds reads and writes back from now on, lets those under way finish
// within DrainTimeout, and returns when none is left. What is held back waits for
// Lead, Forward or Follow, for HoldTimeout at most, and its clients send nothing
// more meanwhile.
func (s *Server) Hold() {
	s.change(func() { s.term, s.holding = nil, true })
}

// Forward sends what was held back, and all that comes from now on, to the
// server that leads, which has the given address for clients. It lets what is
// under way finish first, as Hold does.
func (s *Server) Forward(address string) {
	s.change(func() { s.term, s.holding, s.leader = nil, false, address })
}

// Follow stops admitting reads and writes, lets those under way finish within
// DrainTimeout, and returns when none is left. Clients, those that were held back
// too, are told reason, or what Config.Standing says where that is empty, and with
// a reason the leader's address, where there is one.
func (s *Server) Follow(reason, leaderAddr string) {
	if reason != "" && leaderAddr != "" {
		reason += ", at " + leaderAddr
	}
	s.change(func() { s.term, s.standing, s.holding, s.leader = nil, reason, false, "" })
}

// change makes what do does known to the sessions, and joins what runs in a
// term that ends by it.
func (s *Server) change(do func()) {
	s.mu.Lock()
	old := s.term
	do()
	ended := old != s.term
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	if ended {
		old.drain(s.cfg.DrainTimeout)
	}
}

// Connected returns how many clients are connected.
func (s *Server) Connected() int64 { return s.connected.Load() }

// Redirect is Forward for a server whose commands are held back or forwarded
// already. It does nothing for one that leads or follows.
func (s *Server) Redirect(address string) {
	s.change(func() {
		if s.holding || s.leader != "" {
			s.holding, s.leader = false, address
		}
	})
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

// A place is where a batch is to be run: in a term of this server, or at the
// address of another one.
type place struct {
	term   *term // the caller runs one batch in it and calls running.Done
	leader string
}

// admit returns where a batch is to be run, once that is known, or an error that
// says why nowhere.
func (s *Server) admit(ctx context.Context, late time.Time) (place, error) {
	over := time.NewTimer(time.Until(late))
	defer over.Stop()
	for {
		p, changed, err := s.where()
		if changed == nil {
			return p, err
		}
		select {
		case <-changed:
		case <-over.C:
			return place{}, &notLeading{"(the next leader has not come yet)"}
		case <-ctx.Done():
			return place{}, context.Cause(ctx)
		}
	}
}

// where looks once. Changed is nil unless batches are held back.
func (s *Server) where() (p place, changed <-chan struct{}, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.term != nil:
		s.term.running.Add(1)
		return place{term: s.term}, nil, nil
	case s.holding:
		return place{}, s.changed, nil
	case s.leader != "":
		return place{leader: s.leader}, nil, nil
	default:
		return place{}, nil, &notLeading{s.why()}
	}
}

// outlived waits until t is no longer the term under way, and reports whether
// that came in time.
func (s *Server) outlived(ctx context.Context, t *term, late time.Time) bool {
	over := time.NewTimer(time.Until(late))
	defer over.Stop()
	for {
		s.mu.RLock()
		ended, changed := s.term != t, s.changed
		s.mu.RUnlock()
		if ended {
			return true
		}
		select {
		case <-changed:
		case <-over.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
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
