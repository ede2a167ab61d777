package catalog

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// A Follower reads along: it keeps the entries in memory and applies the
// holder's commits in order, no later than PollInterval plus one read of the
// store. It writes nothing at all, but for the record of a [Loss] that it finds. One that was given a generation ends as soon
// as it sees a higher one. Its methods may be called concurrently.
type Follower struct {
	r   *replica // the following goroutine's, until it has returned
	end ending

	applying   sync.Mutex    // held while commits are applied and published; of r.dry, r.trace and opened
	rehearsing chan struct{} // holds one while the migrations run, and from Open on

	state atomic.Pointer[state]
	view  atomic.Pointer[sighting]

	mu    sync.Mutex
	moved chan struct{} // closed and replaced when the view moves
	wake  chan struct{} // has the following goroutine look

	stop   context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
	opened bool // Open was called, and has the replica
	failed bool // it gave it back
}

// sighting is a head, and when the read that found it was sent.
type sighting struct {
	head driver.Head
	at   time.Time
}

// Follow begins to follow the catalog in store, and returns once everything is
// read that was committed before the call. An empty catalog, or a store that
// doesn't hold one yet, is followed from its first claim. Follow tries again
// while the store fails in passing, until ctx ends or cfg.ClaimTimeout is over;
// its errors are those of [Open].
func Follow(ctx context.Context, store driver.Store, cfg Config) (*Follower, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return follow(ctx, newReplica(witnessed(store), cfg))
}

// Again follows on after [Follower.Open] has failed, as [Follow] does, but without
// reading again what was read, or running again migrations whose run still fits.
// It returns [ErrClosed] if Open was not called, or has succeeded.
func (f *Follower) Again(ctx context.Context) (*Follower, error) {
	f.applying.Lock()
	free := f.failed
	f.failed = false // the replica is handed out once
	f.applying.Unlock()
	if !free {
		return nil, ErrClosed
	}
	if !f.r.claim.ID.IsZero() { // a claim that landed, and could not be made durable
		return follow(ctx, newReplica(f.r.store, f.r.cfg))
	}
	return follow(ctx, f.r)
}

func follow(ctx context.Context, r *replica) (*Follower, error) {
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	f := &Follower{r: r, moved: make(chan struct{}), wake: make(chan struct{}, 1), rehearsing: make(chan struct{}, 1), stop: stop}
	f.end.init()
	cfg := r.cfg
	pace := newPace(cfg.ClaimTimeout)
	for {
		err := f.look(ctx)
		if err == nil {
			err = f.end.reason()
		}
		if err == nil {
			break
		}
		if !transient(err) || !pace.wait(ctx) {
			stop()
			return nil, err
		}
	}
	f.wg.Go(func() { watch(base, cfg, writesOf(f.r.store), f.wake, f.look) })
	return f, nil
}

// look reads the newest head and applies the log up to it. The fence comes
// before the data: those of a newer generation may be in a form that this
// build can't read.
func (f *Follower) look(ctx context.Context) error {
	if f.end.ended() {
		return nil
	}
	sent := time.Now()
	head, err := f.r.readHead(ctx)
	if err == nil {
		err = f.admit(head)
	}
	if err == nil {
		err = f.apply(ctx, sighting{head: head, at: sent})
	}
	switch {
	case err == nil:
	case exitcodes.Of(err) == exitcodes.Retry, exitcodes.Of(err) == exitcodes.None:
		return err
	default:
		f.end.with(f.r.store.reportLoss(ctx, f.r.cfg, err))
	}
	return nil
}

// apply applies the log up to the head that was seen, and publishes what that
// leads to.
func (f *Follower) apply(ctx context.Context, s sighting) error {
	f.applying.Lock()
	defer f.applying.Unlock()
	if err := f.r.advance(ctx, f.r.store, s.head); err != nil {
		return err
	}
	f.publish(s)
	return nil
}

// admit says whether this process may go on reading under head.
func (f *Follower) admit(head driver.Head) error {
	mine, theirs := f.r.cfg.Generation, head.Claim.Token
	if mine != generation.None && theirs.Generation > mine {
		return fence.Check(fence.Token{Generation: mine}, theirs, head.Claim.Holder)
	}
	return checkReadable(head.Claim, f.r.cfg.Migrations, mine)
}

// checkReadable says whether a build may read data that c describes. One that
// belongs to no generation reads them whatever they mean.
func checkReadable(c driver.Claim, ms []Migration, g generation.Generation) error {
	if g == generation.None || dataVersion(ms) >= c.ReadableBy {
		return nil
	}
	return checkVersion(c, ms)
}

// snapshot returns the entries, and the head that they are as of.
func (f *Follower) snapshot() (driver.Head, *state) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view.Load().head, f.state.Load()
}

func (f *Follower) publish(s sighting) {
	old := f.view.Load()
	f.mu.Lock()
	f.state.Store(f.r.state)
	f.view.Store(&s)
	f.mu.Unlock()
	if old != nil && old.head.Commit == s.head.Commit {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.moved)
	f.moved = make(chan struct{})
}

// View calls fn with the entries as of [Follower.Head]. Once the follower has
// ended, View returns the reason and does not call fn.
func (f *Follower) View(fn func(*Reader) error) error {
	if f.end.ended() {
		return f.end.reason()
	}
	return f.state.Load().view(fn)
}

// Head returns the newest head that was applied, and when the read that found
// it was sent: how stale the follower is at most.
func (f *Follower) Head() (driver.Head, time.Time) {
	s := f.view.Load()
	return s.head, s.at
}

// Wait waits until cond holds of the applied head, for which it has the follower
// look at once. It returns the reason where the follower ends before, or ctx's
// cause.
func (f *Follower) Wait(ctx context.Context, cond func(driver.Head) bool) error {
	for asked := false; ; asked = true {
		f.mu.Lock()
		moved := f.moved
		f.mu.Unlock()
		if head, _ := f.Head(); cond(head) {
			return nil
		}
		if !asked {
			nudge(f.wake)
		}
		select {
		case <-moved:
		case <-f.end.done:
			return f.end.reason()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Done is closed when the follower has ended. [Follower.Err] says why.
func (f *Follower) Done() <-chan struct{} { return f.end.done }

// Err returns nil until Done is closed, and then the reason.
func (f *Follower) Err() error { return f.end.reason() }

// Open ends the follower and claims, as the function [Open] does, but without
// reading again what was read already, and without running again migrations
// that [Follower.Rehearse] has run. It claims over the claim that the follower
// saw last, and over none of its own generation that came since. If it fails,
// the follower has ended all the same, and [Follower.Again] follows on; a second
// call fails. Beyond the errors of the function [Open] there is [ErrRefused].
func (f *Follower) Open(ctx context.Context, opts ClaimOptions) (*Catalog, error) {
	err := opts.validate()
	if err == nil {
		err = f.prepare(ctx)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if !f.handOut() {
		return nil, cmp.Or(err, ErrClosed)
	}
	f.rehearsing <- struct{}{} // a Rehearse under way ends with the follower
	var c *Catalog
	if err == nil {
		_, at := f.Head()
		c, err = f.r.open(ctx, opts, at)
	}
	if err != nil {
		f.handBack()
	}
	return c, err
}

// handBack takes the replica back from a claim that failed.
func (f *Follower) handBack() {
	f.applying.Lock()
	defer f.applying.Unlock()
	f.failed = true
}

// handOut gives the replica to the caller, unless somebody has it already.
func (f *Follower) handOut() (first bool) {
	f.applying.Lock()
	defer f.applying.Unlock()
	first, f.opened = !f.opened, true
	return first
}

// Close ends the follower and joins its goroutines. It returns the reason why
// it had ended before, if it had.
func (f *Follower) Close() error {
	f.once.Do(func() {
		f.stop()
		f.wg.Wait()
		f.end.with(ErrClosed)
	})
	f.wg.Wait()
	if err := f.end.reason(); !errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}
