package leader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// Config says how a process leads. The zero value of a field means its
// default.
type Config struct {
	// Catalog is how the catalog is opened. Its Generation is required.
	Catalog catalog.Config

	// Admin is the address on which the admin API listens, such as
	// 127.0.0.1:7001; the host must be a loopback address. Empty: none.
	Admin string

	// AutoPromote makes a process promote its own generation once it is ready,
	// without being asked.
	AutoPromote bool

	// Heartbeat is how often the holder gives a sign of life. Default 1 s.
	Heartbeat time.Duration

	// Silence is for how long a standby must have heard no sign of life before
	// it claims. Default 5 s: longer than three elections of an etcd with
	// default settings. At least three Heartbeats.
	Silence time.Duration

	// Poll is how often a waiting process looks at the board. Default 100 ms.
	Poll time.Duration

	// Notify is told how this process stands, in the words of sd_notify(3):
	// READY=1 once it has read everything or leads, and a STATUS whenever that
	// changes. Default: exitcodes.Notify, which does nothing unless a service
	// manager listens. A process with several Leaders gives its own.
	Notify func(assignments ...string) error

	// Logger receives changes of phase and what no caller is told. Default:
	// discard.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Heartbeat = cmp.Or(c.Heartbeat, time.Second)
	c.Silence = cmp.Or(c.Silence, 5*time.Second)
	c.Poll = cmp.Or(c.Poll, 100*time.Millisecond)
	if c.Notify == nil {
		c.Notify = exitcodes.Notify
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Catalog.Logger == nil {
		c.Catalog.Logger = c.Logger
	}
	return c
}

// validate names every mistake at once.
func (c Config) validate() error {
	var errs []error
	if c.Catalog.Generation == generation.None {
		errs = append(errs, fmt.Errorf("%w: a process that may lead needs one", generation.ErrMissing))
	}
	if c.Heartbeat <= 0 || c.Poll <= 0 {
		errs = append(errs, fmt.Errorf("Heartbeat %v and Poll %v: want more than 0", c.Heartbeat, c.Poll))
	}
	if c.Silence < 3*c.Heartbeat {
		errs = append(errs, fmt.Errorf("Silence %v with a Heartbeat of %v: want at least three of them", c.Silence, c.Heartbeat))
	}
	if c.Admin != "" {
		errs = append(errs, checkLoopback(c.Admin))
	}
	if err := errors.Join(errs...); err != nil {
		return exitcodes.WithCode(fmt.Errorf("leader: configuration: %w", err), exitcodes.Config)
	}
	return nil
}

// Work is what a service does while it leads. Its context ends, with the reason
// as its cause, when the token is lost or the process is to stop; Work then
// returns soon. An error that it returns before ends the process.
type Work func(ctx context.Context, c *catalog.Catalog) error

// A Leader takes one process through its phases. Its methods may be called
// concurrently, Run once.
type Leader struct {
	store driver.Store
	cfg   Config
	log   *slog.Logger
	board *catalog.Board
	admin *admin

	promoted chan struct{} // receives when the admin API was told to promote

	mu     sync.Mutex
	status Status
	holder *catalog.Catalog // while this process leads

	told  string // the last STATUS; of Run's goroutine, as ready is
	ready bool   // READY=1 was told
}

// New returns a Leader for the catalog in store. It starts nothing and contacts
// nobody. The store stays the caller's to close, after Run has returned.
func New(store driver.Store, cfg Config) (*Leader, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	l := &Leader{
		store: store, cfg: cfg, log: cfg.Logger,
		board:    catalog.NewBoard(store, cfg.Catalog),
		promoted: make(chan struct{}, 1),
	}
	l.status = Status{Generation: cfg.Catalog.Generation, Since: time.Now(), Reason: "started"}
	l.admin = newAdmin(l)
	return l, nil
}

// Run takes the process through its phases, calls work while it leads, and
// returns when that is over, with everything joined that it started: nil where
// ctx ended or work returned nil, and else the reason. A *fence.Error says that
// a higher generation leads, or another process of this one. The others are
// those of catalog.Open and of work. Exitcodes.Main ends the process as the
// error asks.
//
// The admin API answers from the start of Run to its end; it is closed last.
func (l *Leader) Run(ctx context.Context, work Work) error {
	stop, err := l.admin.start(ctx)
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

// lead waits for the promotion, claims, and works. Where another process of its
// generation was faster, it waits again, as a standby.
func (l *Leader) lead(ctx context.Context, work Work) error {
	for {
		c, err := l.promote(ctx)
		if errors.Is(err, errAgain) {
			continue
		}
		if err != nil {
			return err
		}
		return l.work(ctx, c, work)
	}
}

// errAgain means that a claim came too late, and that waiting begins anew.
var errAgain = errors.New("leader: another was faster")

// promote follows until it is this process's turn, and claims.
func (l *Leader) promote(ctx context.Context) (*catalog.Catalog, error) {
	l.move(CatchingUp, "reading the catalog")
	f, err := l.follow(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // its reason is known by then
	head, _ := f.Head()
	l.sees(head)
	l.move(ReadyToPromote, "everything is read")
	opts, why, err := l.awaitTurn(ctx, f)
	if err != nil {
		return nil, err
	}
	l.move(Promoting, why)
	opts.Reason = why
	c, err := f.Open(ctx, opts)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, catalog.ErrRefused), errors.Is(err, fence.ErrFenced) && !errors.Is(err, fence.ErrSuperseded):
		l.log.InfoContext(ctx, "the claim came too late", "err", err)
		return nil, errAgain
	default:
		return nil, err
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
		l.say(fmt.Sprintf("catching up: the catalog can't be read: %v", err))
	}
}

// catalogConfig is the caller's, with the address of the admin API.
func (l *Leader) catalogConfig() catalog.Config {
	cfg := l.cfg.Catalog
	cfg.Holder.Address = cmp.Or(cfg.Holder.Address, l.admin.address())
	return cfg
}

// work runs the work under a context that ends with the token.
func (l *Leader) work(ctx context.Context, c *catalog.Catalog, work Work) error {
	l.leads(c)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-c.Done():
			cancel(c.Err())
		case <-ctx.Done():
		}
	})
	var beats uint64
	wg.Go(func() { beats = l.keepBeating(ctx, c.Claim()) })
	err := work(ctx, c)
	cancel(errWorkEnded)
	wg.Wait()
	why := l.lastWord(ctx, c)
	switch {
	case why == nil:
		l.sayGoodbye(ctx, c.Claim(), beats+1)
		return err
	case explained(err):
		return why
	default:
		return errors.Join(why, err) // package exitcodes ranks them
	}
}

// explained reports whether what the work returned is only the echo of why the
// handle had ended.
func explained(err error) bool {
	d := exitcodes.Of(err)
	return err == nil || d == exitcodes.None && errors.Is(err, context.Canceled) || d != exitcodes.Panic && errors.Is(err, fence.ErrFenced)
}

var errWorkEnded = errors.New("leader: the work has ended")

// lastWord closes the handle and returns why it had ended, if it had. A process
// that was fenced by epoch asks once more: it may have been superseded since,
// and then it must not come back.
func (l *Leader) lastWord(ctx context.Context, c *catalog.Catalog) error {
	if c.Err() != nil {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.Confirm(bounded) // what it finds, Close returns
	}
	return c.Close()
}
