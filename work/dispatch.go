package work

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
)

// A dispatcher is the goroutine of a Queue that claims, starts and finishes jobs.
// Nobody else claims under this token, so what it has not started does not run.
type dispatcher struct {
	*Queue
	book    *book
	changes *catalog.Changes
	results chan *run // runs that have returned

	running  map[ID]*run     // until their end is acknowledged
	busy     map[string]int  // of each kind: how many of them have not returned
	keys     map[laneKey]int // of each key of a kind with an order: likewise
	free     int
	finished []*run // returned, and not acknowledged
	draining bool
	waiters  []*waiter

	runs    context.Context // of every run
	writes  context.Context // of every commit: ends a while after runs
	wg      sync.WaitGroup
	clock   time.Time // of the last pass
	next    int64     // when the next job is due; 0: none is
	last    Report
	passes  int
	failing error    // of the last commit
	taken   Takeover // from the holder before
}

// A run is one call of a kind's Run.
type run struct {
	*Job
	kind   Kind
	rec    runRecord
	at     time.Time
	cancel context.CancelCauseFunc

	// Once it has returned:
	err     error
	stopped error // why its context had ended before that; nil if it had not
}

// A waiter is told once a condition holds behind a pass, unless its context has ended.
type waiter struct {
	ctx     context.Context
	cond    func(*dispatcher) bool
	reached chan struct{}
}

// newDispatcher begins to follow the jobs of the catalog.
func newDispatcher(q *Queue) (*dispatcher, error) {
	changes, err := q.c.Changes(jobs.Name(), runs.Name())
	if errors.Is(err, catalog.ErrObserved) {
		return nil, fmt.Errorf("%w: %w", ErrRunning, err)
	}
	if err != nil {
		return nil, err
	}
	d := &dispatcher{
		Queue: q, changes: changes, book: newBook(q.c.Token(), q.c.Claim().Holder.Name, q.cfg.Kinds),
		running: map[ID]*run{}, busy: map[string]int{}, keys: map[laneKey]int{}, free: q.cfg.Concurrency, clock: time.Now(),
		results: make(chan *run, maxConcurrency), // so that no run waits to return
	}
	return d, nil
}

// run makes passes until ctx or the handle ends.
func (d *dispatcher) run(ctx context.Context) error {
	runs, cancel := d.c.Context(ctx)
	defer cancel(nil)
	writes, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abort(nil)
	over := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(over)
	wg.Go(func() { d.abortWrites(abort, runs, over) })
	d.runs, d.writes = runs, writes
	err := d.open()
	if err == nil {
		wg.Go(func() { d.readInbox(runs) })
		d.loop()
		err = d.stop()
	}
	if ended := d.c.Err(); ended != nil {
		return errors.Join(ended, err)
	}
	if cause := context.Cause(ctx); cause != nil {
		return errors.Join(cause, err)
	}
	return err
}

// abortWrites has commits that hang fail once Grace is over.
func (d *dispatcher) abortWrites(abort context.CancelCauseFunc, runs context.Context, over <-chan struct{}) {
	select {
	case <-runs.Done():
	case <-over:
		return
	}
	grace := time.NewTimer(d.cfg.Grace)
	defer grace.Stop()
	select {
	case <-grace.C:
		abort(errGrace)
	case <-over:
	}
}

var errGrace = errors.New("work: Grace is over")

// loop makes a pass whenever something has changed.
func (d *dispatcher) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	why := "open"
	for {
		d.readOn()
		d.pass(why)
		timer.Reset(d.untilNext())
		select {
		case <-d.changes.Wake():
			why = "commit"
		case r := <-d.results:
			d.returned(r)
			why = "return"
		case do := <-d.asks:
			do(d)
			why = "asked"
		case <-timer.C:
			why = "time"
		case <-d.runs.Done():
			return
		}
	}
}

const (
	idleLook  = time.Minute            // how long the dispatcher sleeps at most
	retryLook = 100 * time.Millisecond // how long it waits after a commit that failed
)

func (d *dispatcher) untilNext() time.Duration {
	switch {
	case d.book.unread != "":
		return 0
	case d.failing != nil:
		return retryLook
	case d.next == 0:
		return idleLook
	default:
		return min(idleLook, max(0, time.Until(time.Unix(0, d.next))))
	}
}

// readTime bounds how long jobs are read between two passes, so that the first of a
// million run before the last is read.
const readTime = 5 * time.Millisecond

// readOn reads some of the jobs that were there when the Queue began. What is
// committed meanwhile comes by d.changes.
func (d *dispatcher) readOn() {
	if d.book.unread == "" {
		return
	}
	begun := time.Now()
	_ = d.c.View(func(r *catalog.Reader) error { // it fails only if the handle has ended
		return d.book.loadSome(r, begun, func(n int) bool { return n < 100 || time.Since(begun) < readTime })
	})
}

// now returns the time, and notices a clock that was set back.
func (d *dispatcher) now() time.Time {
	now := time.Now()
	passed := now.Sub(d.clock)                     // by the monotonic clock
	wall := now.Round(0).Sub(d.clock.Round(0))     // by the wall clock
	if back := passed - wall; back > time.Second { // else it is only adjusted
		d.cfg.Logger.Warn("the clock was set back; retries don't wait longer for it", "by", back)
		d.book.shift(back)
	}
	d.clock = now
	return now
}

// pass makes one pass. What it decides depends on the book alone, so it may be made
// at any time.
func (d *dispatcher) pass(why string) {
	begun := time.Now()
	d.collect()
	now := d.catchUp()
	d.dropLost()
	acks := d.acks()
	p := d.book.plan(now, d.isRunning, d.slots(), d.busy)
	r := Report{
		At: begun, Trigger: why, Running: len(d.running), LostClaims: len(p.start),
		Unknown: d.book.unknown, Stranded: d.book.stranded,
	}
	ready := d.book.readyCount()
	d.failing = nil
	d.startHeld(p.start)
	if len(acks)+len(p.claims) > 0 {
		d.failing = d.write(acks, p.claims, now)
		d.catchUp()
	}
	r.Ended = r.Running + r.LostClaims - len(d.running)
	r.Claimed = d.startClaimed(p.claims)
	r.Leaving = d.leaving()
	r.Waiting = ready - r.Claimed
	for _, c := range p.claims {
		if c.dies != "" && d.failing == nil {
			r.Died++
			r.Waiting--
		}
	}
	r.Took, r.Number = time.Since(begun), d.passes+1
	d.last, d.passes = r, r.Number
	d.waiters = slices.DeleteFunc(d.waiters, func(w *waiter) bool {
		reached := d.failing == nil && w.cond(d)
		if reached {
			close(w.reached)
		}
		return reached || w.ctx.Err() != nil
	})
}

// leaving returns how many runs have no job any more.
func (d *dispatcher) leaving() (n int) {
	for _, r := range d.running {
		if !d.mine(r) {
			n++
		}
	}
	return n
}

// collect takes what has returned.
func (d *dispatcher) collect() {
	for {
		select {
		case r := <-d.results:
			d.returned(r)
		default:
			return
		}
	}
}

func (d *dispatcher) returned(r *run) {
	d.finished = append(d.finished, r)
	d.free++
	d.busy[r.Kind]--
	if r.kind.Order != Any {
		d.keys[laneKey{r.Kind, r.Key}]--
		if d.keys[laneKey{r.Kind, r.Key}] == 0 {
			delete(d.keys, laneKey{r.Kind, r.Key})
		}
	}
}

// A laneKey names the lane of a run.
type laneKey struct{ kind, key string }

// isRunning reports whether a run of the job, or of its key, has not returned.
func (d *dispatcher) isRunning(it *item) bool {
	return d.running[it.id] != nil || it.lane != nil && d.keys[laneKey{it.shelf.Name, it.key}] > 0
}

// catchUp reads what was committed.
func (d *dispatcher) catchUp() time.Time {
	now := d.now()
	d.book.apply(d.changes.Take(), now)
	d.next = d.book.tick(now)
	return now
}

// slots returns how many more jobs may run.
func (d *dispatcher) slots() int {
	if d.draining || d.runs.Err() != nil {
		return 0
	}
	return max(0, d.free)
}

func (d *dispatcher) idle() bool {
	return d.book.unread == "" && len(d.running) == 0 && d.book.readyCount() == 0 && (d.next == 0 || d.next > time.Now().UnixNano())
}

// mine reports whether the book says that a run still has its job.
func (d *dispatcher) mine(r *run) bool {
	it := d.book.held[r.ID]
	return it != nil && it.run.Serial == r.serial
}

// dropLost ends the runs of jobs that were taken from them.
func (d *dispatcher) dropLost() {
	for _, r := range d.running {
		if !d.mine(r) && !r.completed.Load() {
			r.cancel(ErrAbandoned)
		}
	}
}

// stop waits for what runs, and gives back what was interrupted.
func (d *dispatcher) stop() error {
	grace := time.NewTimer(d.cfg.Grace)
	defer grace.Stop()
	for d.notReturned() > 0 {
		select {
		case r := <-d.results:
			d.returned(r)
		case do := <-d.asks:
			do(d)
		case <-grace.C:
			d.collect()
			if left := d.notReturned(); left > 0 {
				d.settle()
				return exitcodes.With(fmt.Errorf("%w for %v: %d of them", ErrStillRunning, d.cfg.Grace, left), exitcodes.Halt)
			}
		}
	}
	d.wg.Wait()
	d.settle()
	return nil
}

// notReturned returns how many runs have not returned, with or without a job.
func (d *dispatcher) notReturned() int { return d.cfg.Concurrency - d.free }

// settle writes what became of the runs that have returned, if the token is held.
func (d *dispatcher) settle() {
	if d.c.Err() != nil {
		return
	}
	now := d.catchUp()
	d.collect()
	acks := d.acks()
	if len(acks) == 0 {
		return
	}
	if err := d.write(acks, nil, now); err != nil && d.c.Err() == nil {
		// Their jobs are orphans then, and run again under the next token.
		d.cfg.Logger.Warn("what became of the last runs was not written", "jobs", len(acks), "err", err)
	}
}
