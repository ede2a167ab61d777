package work

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
)

var (
	// ErrRunning means that another Queue runs on this handle, or that this one ran
	// before.
	ErrRunning = errors.New("work: a Queue runs on this catalog already, or has run")

	// ErrNotRunning means that the Queue does not run, so nobody does what was asked
	// for.
	ErrNotRunning = errors.New("work: the Queue does not run")

	// ErrStillRunning means that runs had not returned when Config.Grace was over. The
	// process must end, since their jobs will run again: it asks for halt.
	ErrStillRunning = errors.New("work: runs go on although their context has ended")
)

// Config says which work is done, and how. The zero value of a field means its
// default.
type Config struct {
	// Kinds are the kinds of jobs that this process runs. Jobs of other kinds wait.
	Kinds []Kind

	// Concurrency is how many jobs run at a time. Default 32, at most 10,000.
	Concurrency int

	// Grace is how long Run waits for runs to return once their context has ended.
	// Default 10 s.
	Grace time.Duration

	// Poll is how often the inbox is read where no wake-up comes: how late a request
	// of another process is noticed. Default 1 s. Negative: the inbox is not read.
	Poll time.Duration

	// Logger receives failures of jobs and what no caller is told. Default: discard.
	Logger *slog.Logger
}

const (
	defaultConcurrency = 32
	maxConcurrency     = 10_000
	defaultGrace       = 10 * time.Second
	defaultPoll        = time.Second
)

func (cfg Config) withDefaults() Config {
	if cfg.Concurrency == 0 {
		cfg.Concurrency = defaultConcurrency
	}
	if cfg.Grace == 0 {
		cfg.Grace = defaultGrace
	}
	if cfg.Poll == 0 {
		cfg.Poll = defaultPoll
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	known := make([]Kind, len(cfg.Kinds))
	for i, k := range cfg.Kinds {
		known[i] = k.withDefaults(cfg.Concurrency)
	}
	cfg.Kinds = known
	return cfg
}

// check returns every mistake of a Config.
func (cfg Config) check() error {
	var errs []error
	if cfg.Concurrency < 0 || cfg.Concurrency > maxConcurrency {
		errs = append(errs, fmt.Errorf("work: Concurrency is %d, want 0 to %d", cfg.Concurrency, maxConcurrency))
	}
	if cfg.Grace < 0 {
		errs = append(errs, fmt.Errorf("work: Grace is %v, want 0 or more", cfg.Grace))
	}
	named := map[string]bool{}
	for _, k := range cfg.Kinds {
		if named[k.Name] {
			errs = append(errs, fmt.Errorf("work: kind %q is there twice", clip(k.Name, 64)))
		}
		named[k.Name] = true
		errs = append(errs, k.check())
	}
	if err := errors.Join(errs...); err != nil {
		return exitcodes.With(err, exitcodes.Halt)
	}
	return nil
}

// A Queue runs the jobs of a catalog in the process that holds its token. Its
// methods may be called concurrently.
type Queue struct {
	c    *catalog.Catalog
	cfg  Config
	used atomic.Bool

	asks  chan func(*dispatcher) // done by the dispatcher's goroutine
	ended chan struct{}          // closed when Run returns
	once  sync.Once
}

// New returns a Queue for the jobs of c. It starts nothing. An error names every
// mistake in cfg.
func New(c *catalog.Catalog, cfg Config) (*Queue, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Queue{
		c: c, cfg: cfg.withDefaults(), asks: make(chan func(*dispatcher)),
		ended: make(chan struct{}),
	}, nil
}

// Run claims and runs jobs, until ctx ends or the token is lost. It then cancels
// what runs, waits for it, gives back the jobs that were interrupted, and returns
// ctx's cause or the reason of the loss. Everything that it starts has returned by
// then, unless the error wraps [ErrStillRunning]. It is called once; another Queue
// may run on the handle afterwards, as behind a pause.
func (q *Queue) Run(ctx context.Context) error {
	if q.used.Swap(true) {
		return ErrRunning
	}
	defer close(q.ended)
	d, err := newDispatcher(q)
	if err != nil {
		return err
	}
	defer d.changes.Stop()
	return d.run(ctx)
}

// ask has the dispatcher do something, and waits until it is done.
func (q *Queue) ask(ctx context.Context, do func(*dispatcher)) error {
	done := make(chan struct{})
	select {
	case q.asks <- func(d *dispatcher) { do(d); close(done) }:
	case <-q.ended:
		return ErrNotRunning
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-done
	return nil
}

// Pass makes one pass at once: it claims what may run now and is free to, and
// finishes what has returned. It may be called at any time and any number of times,
// and never starts a job twice.
func (q *Queue) Pass(ctx context.Context) (Report, error) {
	var report Report
	var failed error
	err := q.ask(ctx, func(d *dispatcher) {
		d.pass("asked")
		report, failed = d.last, d.failing
	})
	if err == nil {
		err = failed
	}
	return report, err
}

// Drain stops claiming, for good, and waits until nothing runs. It is a courtesy
// before a handover: what it does not wait for is interrupted and runs again under
// the next token.
func (q *Queue) Drain(ctx context.Context) error {
	if err := q.ask(ctx, func(d *dispatcher) { d.draining = true }); err != nil {
		return err
	}
	return q.wait(ctx, func(d *dispatcher) bool { return len(d.running) == 0 })
}

// Idle waits until nothing runs and nothing may run now.
func (q *Queue) Idle(ctx context.Context) error {
	return q.wait(ctx, func(d *dispatcher) bool { return d.idle() })
}

// wait waits until cond holds behind a pass.
func (q *Queue) wait(ctx context.Context, cond func(*dispatcher) bool) error {
	reached := make(chan struct{})
	w := &waiter{ctx: ctx, cond: cond, reached: reached}
	if err := q.ask(ctx, func(d *dispatcher) { d.waiters = append(d.waiters, w) }); err != nil {
		return err
	}
	select {
	case <-reached:
		return nil
	case <-q.ended:
		return ErrNotRunning
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Status says what the jobs do, and what this Queue has done since it began. It counts
// every job, and no job is claimed meanwhile: that takes seconds if there are a million.
// Right after Run began it first waits until all jobs are read, while jobs run.
func (q *Queue) Status(ctx context.Context) (Status, error) {
	var s Status
	var failed, err error
	for all := false; !all && err == nil; { // a pass is made between two askings
		err = q.ask(ctx, func(d *dispatcher) {
			d.readOn()
			if all = d.book.unread == "" || d.c.Err() != nil; all {
				s, failed = d.status()
			}
		})
	}
	return s, errors.Join(err, failed)
}
