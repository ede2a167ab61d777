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
	death     atomic.Pointer[death]           // the newest one that was proven; kept over a claim that failed
	promoted  chan struct{}                   // holds one after a promotion by the admin API
	asks      chan *ask                       // to the term
	changed   chan struct{}                   // holds one if this process may have changed since a heartbeat
	said      atomic.Pointer[HolderState]     // by the newest heartbeat; nil: nothing

	prepare, catchUp question // of the goroutine of Run

	mu        sync.Mutex
	status    Status
	state     workState     // of the work
	hindered  string        // why the claim under way does not succeed; empty: it does, or there is none
	announced chan struct{} // closed and replaced when there is something to see on the board

	out outlets

	telling sync.Mutex // for what follows
	told    string     // the last STATUS
	seen    sighting
	ready   bool // READY=1 was told
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
		promoted: make(chan struct{}, 1), asks: make(chan *ask), announced: make(chan struct{}), changed: make(chan struct{}, 1),
	}
	l.out = newOutlets(cfg)
	l.lease.length, l.lease.clock = cfg.Lease, cfg.Clock.read()
	l.lease.born, l.host = l.lease.clock(), clock.Host()
	l.reluctant.Store(cfg.PreferNotToLead)
	l.prepare, l.catchUp = question{Leader: l, name: "Prepare"}, question{Leader: l, name: "CaughtUp"}
	l.peers = peer.NewServer(holder{l})
	l.status = Status{Generation: cfg.Catalog.Generation, Since: time.Now(), Reason: "started"}
	return l, nil
}

// Run takes the process through its phases, calls work while it leads, and
// returns when that is over, with everything joined that it started, but for a work or
// a hook that does not return though its context has ended: nil where
// ctx ended or work returned nil, and else the reason. A *fence.Error says that
// a higher generation leads, or another process of this one. The others are
// those of catalog.Open and of work, and a *LateError. Exitcodes.Main ends the
// process as the error asks. A process whose migrations fail in their rehearsal does
// not end: it is not ready, and says why.
//
// The admin API answers from the start of Run to its end; its listener is closed
// last.
func (l *Leader) Run(ctx context.Context, work Work) error {
	stop, err := l.listen(ctx)
	if err != nil {
		return err
	}
	defer l.flush()
	defer stop()
	leave := sync.OnceFunc(l.enroll(ctx))
	defer leave() // behind a panic of a hook too
	err = l.lead(ctx, work)
	phase, reason := ended(ctx, err)
	l.fencedBy(err)
	l.move(phase, reason)
	leave()
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

// lead campaigns, claims, and works. A process whose standby took over, as was
// offered, campaigns again.
func (l *Leader) lead(ctx context.Context, work Work) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	warming, stop := context.WithCancel(ctx)
	defer stop()
	wg.Go(func() { l.keepWarm(warming) })
	defer l.joinHooks()
	for {
		c, sent, err := l.campaign(ctx)
		if err == nil {
			err = l.hold(ctx, c, work, sent)
		}
		if !errors.Is(err, errAgain) {
			return err
		}
	}
}

// joinHooks waits for hooks under way, whose context has ended. One that does not return
// is left behind.
func (l *Leader) joinHooks() {
	bounded, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	l.prepare.join(bounded)
	l.catchUp.join(bounded)
}

// errAgain means that this process campaigns again, since another one leads.
var errAgain = errors.New("leader: another process leads")

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
		l.telling.Lock()
		l.say(fmt.Sprintf("catching up: the catalog can't be read: %v", err))
		l.telling.Unlock()
	}
}

// catalogConfig is the caller's, with the address of this process.
func (l *Leader) catalogConfig() catalog.Config {
	cfg := l.cfg.Catalog
	cfg.Holder.Address = cmp.Or(cfg.Holder.Address, l.peer.address(), l.admin.address())
	return cfg
}
