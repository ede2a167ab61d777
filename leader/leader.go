package leader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/clock"
	"github.com/fencepost/fencepost/leader/internal/peer"
)

// A Leader takes one process through its phases. Its methods may be called
// concurrently, Run once.
type Leader struct {
	store driver.Store
	cfg   Config
	log   *slog.Logger
	board *catalog.Board
	lease lease
	host  string // of this process, as clock.Host names it

	admin     listening
	peer      listening
	peers     *peer.Server
	handing   atomic.Bool // to a successor that has asked
	reluctant atomic.Bool
	leaving   atomic.Int64                    // calls of StepDown under way
	holder    atomic.Pointer[catalog.Catalog] // while this process holds the token
	gone      atomic.Pointer[driver.ID]       // the claim whose process is dead; also behind a claim that failed
	promoted  chan told                       // holds what the admin API wrote last
	asks      chan *ask                       // to the tenure, while the work runs
	cutShort  time.Duration                   // how long the migrations had run when a holder resumed its work; of Run

	mu        sync.Mutex
	status    Status
	announced chan struct{} // closed and replaced when there is something to see on the board

	told  string // the last STATUS; of the goroutine that moves, as seen and ready are
	seen  sighting
	ready bool // READY=1 was told
}

// New returns a Leader for the catalog in store. It starts nothing and contacts
// nobody. The store stays the caller's to close, after Run has returned.
func New(store driver.Store, cfg Config) (*Leader, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	store = catalog.Witnessed(store)
	l := &Leader{
		store: store, cfg: cfg, log: cfg.Logger,
		board:    catalog.NewBoard(store, cfg.boardConfig()),
		promoted: make(chan told, 1), asks: make(chan *ask), announced: make(chan struct{}),
	}
	l.peers = peer.NewServer(holder{l})
	l.lease.length, l.lease.clock = cfg.Lease, cfg.Clock.read()
	l.lease.born, l.host = l.lease.clock(), clock.Host()
	l.reluctant.Store(cfg.PreferNotToLead)
	l.status = Status{Generation: cfg.Catalog.Generation, Since: time.Now(), Reason: "started"}
	return l, nil
}

// Run takes the process through its phases, calls work while it leads, and
// returns when that is over, with everything joined that it started: nil where
// ctx ended or work returned nil, and else the reason. A *fence.Error says that
// a higher generation leads, or another process of this one. The others are
// those of catalog.Open and of work, a *LateError, and that of a migration which
// failed in its rehearsal. Exitcodes.Main ends the process as the error asks.
//
// The admin API answers from the start of Run to its end; its listener is closed
// last.
func (l *Leader) Run(ctx context.Context, work Work) error {
	stop, err := l.listen(ctx)
	if err != nil {
		return err
	}
	defer stop()
	err = l.lead(ctx, work)
	phase, reason := ended(ctx, err)
	l.fencedBy(err)
	l.move(phase, reason)
	if phase == Stopped {
		return nil
	}
	return err
}

// Held reports whether this process holds the token as far as it can know
// without asking: it was confirmed less than Lease ago. It costs one look at the
// clock, and answers less than a commit, a guard or Confirm do: none of these
// can succeed once a newer token is in the store, and Held may say yes for as
// long as it takes this process to hear of that.
func (l *Leader) Held() bool {
	c := l.holding()
	return c != nil && c.Err() == nil && l.lease.left() > 0
}

// ended says in which phase a process ends, and why.
func ended(ctx context.Context, err error) (Phase, string) {
	switch {
	case errors.Is(err, fence.ErrSuperseded):
		return Superseded, err.Error()
	case errors.Is(err, fence.ErrFenced):
		return Fenced, err.Error()
	case err == nil:
		return Stopped, "the work is done"
	case ctx.Err() != nil && exitcodes.Of(err) == exitcodes.None && (errors.Is(err, context.Cause(ctx)) || errors.Is(err, ctx.Err())):
		return Stopped, "asked to stop"
	default:
		return Failed, err.Error()
	}
}

// lead waits for its turn, claims, and works. Where another process of its
// generation was faster, or took over as was offered, it waits again, as a
// standby.
func (l *Leader) lead(ctx context.Context, work Work) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	warming, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { l.keepWarm(warming) })
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = l.cfg.HandoverTimeout, 12*l.cfg.HandoverTimeout
	for {
		c, sent, err := l.promote(ctx)
		if err == nil {
			pause.Reset()
			err = l.hold(ctx, c, work, sent)
		}
		if !errors.Is(err, errAgain) {
			return err
		}
		if errors.Is(err, errLater) {
			elapse(ctx, pause.NextBackOff())
		}
	}
}

// How often a waiting process sees to it that its store is warm, and how often
// where that fails for a reason that does not pass by itself.
const (
	warmEvery = time.Second
	warmAgain = time.Minute
)

// keepWarm has the store make ready, while this process waits, what a claim and
// the first commits need: nobody writes between two leaders.
func (l *Leader) keepWarm(ctx context.Context) {
	w, ok := driver.As[driver.Warmer](l.store)
	for ok {
		next := warmEvery
		if l.holding() == nil {
			bounded, cancel := context.WithTimeout(ctx, l.cfg.heartbeat())
			err := w.Warm(bounded)
			cancel()
			if err != nil && ctx.Err() == nil {
				l.log.DebugContext(ctx, "the store is not warm", "err", err)
			}
			if exitcodes.Of(err) > exitcodes.Retry {
				next = warmAgain
			}
		}
		ok = elapse(ctx, next)
	}
}

var (
	// errAgain means that waiting begins anew, such as because another process
	// leads.
	errAgain = errors.New("leader: another was faster")

	// errLater is an errAgain behind a claim that failed in passing: to ask the
	// holder again at once would keep it from its work.
	errLater = fmt.Errorf("%w, or the store failed", errAgain)
)

// promote follows until it is this process's turn, and claims. Sent is when the
// claim was begun, by the lease's clock.
func (l *Leader) promote(ctx context.Context) (c *catalog.Catalog, sent time.Duration, err error) {
	l.move(CatchingUp, "reading the catalog")
	f, err := l.follow(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = f.Close() }() // its reason is known by then
	now, err := l.awaitTurn(ctx, f)
	if err != nil {
		return nil, 0, err
	}
	if err := f.CheckClaim(ctx); errors.Is(err, catalog.ErrLossStands) {
		return nil, 0, err // and no holder stops its work for a claim that can't pass
	}
	if l.Status().Phase == CatchingUp {
		l.move(ReadyToPromote, "no loss stands any more")
	}
	l.move(Promoting, now.opts.Reason)
	holder := l.askHolder(ctx, f, now)
	defer holder.end()
	if holder.paused && now.gate != nil { // on the holder's last commit
		err = holder.migrate(ctx, now.gate, f)
	}
	if err == nil {
		sent = l.lease.now()
		c, err = f.Open(ctx, now.opts)
	}
	switch {
	case errors.Is(err, catalog.ErrRefused), errors.Is(err, fence.ErrFenced) && !errors.Is(err, fence.ErrSuperseded):
		l.log.InfoContext(ctx, "the claim came too late", "err", err)
		err = errAgain
	case exitcodes.Of(err) == exitcodes.Retry && ctx.Err() != nil: // as in follow
		err = context.Cause(ctx)
	case exitcodes.Of(err) == exitcodes.Retry: // to start anew would only come here again
		l.log.WarnContext(ctx, "the claim did not succeed, and is waited for again", "store", l.store.String(), "err", err)
		err = errLater
	}
	return c, sent, err
}

// follow begins to read along, and goes on trying while the store can't be
// reached: a standby outlives an outage.
func (l *Leader) follow(ctx context.Context) (*catalog.Follower, error) {
	for {
		f, err := catalog.Follow(ctx, l.store, l.catalogConfig())
		if err == nil || exitcodes.Of(err) != exitcodes.Retry {
			return f, err
		}
		if ctx.Err() != nil { // nothing is at stake yet: to stop was the last word
			return nil, context.Cause(ctx)
		}
		l.log.WarnContext(ctx, "the catalog can't be read", "store", l.store.String(), "err", err)
		l.say(fmt.Sprintf("catching up: the catalog can't be read: %v", err))
	}
}

// catalogConfig is the caller's, with the address of this process.
func (l *Leader) catalogConfig() catalog.Config {
	cfg := l.cfg.Catalog
	cfg.Holder.Address = cmp.Or(cfg.Holder.Address, l.peer.address(), l.admin.address())
	return cfg
}
