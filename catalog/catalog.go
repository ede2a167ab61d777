package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// A Catalog is the handle of a holder: it was given the token by [Open], and
// can write until it is fenced or closed. Its methods may be called
// concurrently.
type Catalog struct {
	store *witness
	cfg   Config
	claim driver.Claim

	base   context.Context // the opener's values, and nobody's end
	trying context.Context // ends a while after Close was called

	state atomic.Pointer[state]    // as of acked
	known atomic.Pointer[position] // as of the last acknowledged commit

	committer sync.Mutex  // who holds it writes; of batch, unsent, unsettled and alone
	batch     []*request  // of the commit loop; being computed
	unsent    []*group    // computed, and neither sent nor answered
	unsettled int64       // bytes of log that no snapshot may be made of yet
	running   running     // the functions of the batch
	alone     bool        // nobody shared the last commit, or waited for it
	pending   atomic.Bool // the commit loop waits for the committer

	queue    chan *request
	compacts compactor
	confirms coalescer
	end      ending

	observing observing

	reporting sync.Once
	reported  error // the loss that was found
	lossWake  chan struct{}

	closing  chan struct{} // closed by Close: no more Updates
	closed   sync.Once
	left     bool          // a function was still running when Close returned
	idle     chan struct{} // closed when the committer has returned
	stop     context.CancelFunc
	giveUpBy context.CancelFunc // ends trying
	wg       sync.WaitGroup
}

func newCatalog(ctx context.Context, r *replica) *Catalog {
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &Catalog{
		store: r.store, cfg: r.cfg, claim: r.claim, base: base, stop: stop,
		queue: make(chan *request, r.cfg.MaxQueued), closing: make(chan struct{}), idle: make(chan struct{}),
		running: newRunning(), lossWake: make(chan struct{}, 1),
	}
	c.trying, c.giveUpBy = context.WithCancel(base)
	c.end.init()
	c.alone = true
	c.state.Store(r.state)
	c.known.Store(&position{acked: r.acked, tip: r.acked})
	c.confirms.ask = c.confirmOnce
	c.compacts.init(r.version)
	return c
}

// start starts the goroutines that Close joins.
func (c *Catalog) start() {
	c.wg.Go(func() { watch(c.base, c.cfg, c.claimsAndLosses(), make(chan struct{}, 1), c.look) })
	go c.commitLoop() // which closes idle
	c.wg.Go(c.compactLoop)
	c.wg.Go(c.tellRisks)
	c.wg.Go(c.tellLosses)
}

// Token returns the token that this handle was given. It may have been fenced
// since: see [Catalog.Done].
func (c *Catalog) Token() fence.Token { return c.claim.Token }

// Board returns the board beside this catalog.
func (c *Catalog) Board() *Board { return NewBoard(c.store, c.cfg) }

// Claim returns the claim that made this handle the holder.
func (c *Catalog) Claim() driver.Claim { return c.claim }

// Head returns the head as of the last commit that this handle was told has
// landed. It asks nobody.
func (c *Catalog) Head() driver.Head { return c.known.Load().tip }

// Done is closed when the handle has ended: it was fenced, closed, or its
// store is broken. [Catalog.Err] says why.
func (c *Catalog) Done() <-chan struct{} { return c.end.done }

// Err returns nil until Done is closed, and then the reason. A handle that was
// fenced by epoch first and superseded later says superseded: the newest head
// that was seen decides.
func (c *Catalog) Err() error { return c.end.reason() }

// Context returns a context that ends with parent, and with the handle: then
// the reason is its cause, and it has ended before any call of the handle
// returns that reason. The caller calls the function that it also gets, once it
// needs the context no longer.
func (c *Catalog) Context(parent context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	forget := c.end.before(cancel)
	return ctx, func(cause error) { forget(); cancel(cause) }
}

// View calls fn with the entries as of this handle's last commit. It costs no
// call of the store, and so says nothing about a claim that this process has
// not heard of yet: where that matters, call [Catalog.Confirm] afterwards. Once
// the handle has ended, View returns the reason and does not call fn.
func (c *Catalog) View(fn func(*Reader) error) error {
	if c.end.ended() {
		return c.end.reason()
	}
	return c.state.Load().view(fn)
}

// Close ends the handle: Updates that were queued are finished, and later ones
// fail with [ErrClosed]. Where the store is in trouble, Close goes on trying for
// a StoreTimeout, and two more for each commit that is left in the queue. It
// joins every goroutine. The token stays in the store, as it is never given
// back: the next claim takes over. It returns the reason why the handle had
// ended before, if it had.
//
// A function given to Update that has not returned for a StoreTimeout is not
// waited for any longer: nothing of it will be written, its goroutine is left
// behind, and Close returns [ErrStillRunning]. Called by such a function, Close
// does nothing and returns [ErrReentrant].
func (c *Catalog) Close() error {
	if c.running.isCaller() {
		return ErrReentrant
	}
	c.closed.Do(func() {
		close(c.closing)
		defer time.AfterFunc(c.cfg.StoreTimeout, c.giveUpBy).Stop()
		c.left = !c.awaitIdle()
		c.end.with(ErrClosed)
		c.stop()
		c.confirms.close()
	})
	c.wg.Wait()
	err := c.end.reason()
	if errors.Is(err, ErrClosed) {
		err = nil
	}
	if c.left {
		err = errors.Join(fmt.Errorf("%w for %v", ErrStillRunning, c.cfg.StoreTimeout), err)
	}
	return err
}

// awaitIdle waits until the committer has returned. It returns false once one
// function of a caller's has been running for a StoreTimeout.
func (c *Catalog) awaitIdle() bool {
	look := time.NewTicker(c.cfg.StoreTimeout)
	defer look.Stop()
	for before := c.running.count.Load(); ; {
		select {
		case <-c.idle:
			return true
		case <-look.C:
		}
		count := c.running.count.Load()
		if c.running.now.Load() && count == before {
			return false
		}
		before = count
	}
}

// look reads the newest head because something may have changed.
func (c *Catalog) look(ctx context.Context) error {
	before := c.memory()
	head, err := callStore(ctx, c.cfg.StoreTimeout, c.store.Head)
	if err == nil {
		err = judgeBeside(before, c.memory(), head)
	}
	if err == nil || transient(err) {
		return err
	}
	_ = c.endWith(err)
	return nil
}

// endWith ends the handle. If err tells of a loss, that is then written into the
// store, by the first goroutine that finds it, and the others wait. It returns err,
// or the loss that was found first.
func (c *Catalog) endWith(err error) error {
	c.end.with(err)
	if !errors.Is(err, ErrLostCommit) {
		return err
	}
	c.reporting.Do(func() { c.reported = c.store.reportLoss(c.base, c.cfg, err) })
	return c.reported
}

// position is how far a handle has come in the log.
type position struct {
	acked, tip driver.Head // see memory
	sent       []driver.ID // behind acked: see memory
}

// maxSent is how many commits that the store refused are kept in mind. None is
// kept once a later one was acknowledged.
const maxSent = 1000

// sending notes a commit before it is sent.
func (c *Catalog) sending(id driver.ID) {
	p := c.known.Load()
	sent := append(slices.Clip(p.sent), id)
	c.known.Store(&position{acked: p.acked, tip: p.tip, sent: sent[max(0, len(sent)-maxSent):]})
}

// landed notes a commit of some size that is the newest. One that was read back is
// not durable yet, and no snapshot is made of it.
func (c *Catalog) landed(head driver.Head, readBack bool, size int64) {
	c.unsettled += size
	if readBack {
		p := c.known.Load()
		c.known.Store(&position{acked: p.acked, tip: head, sent: p.sent})
		return
	}
	c.known.Store(&position{acked: head, tip: head})
	c.grown(c.unsettled, moment{head: head, state: c.state.Load()})
	c.unsettled = 0
}

// settled notes that everything that landed is durable.
func (c *Catalog) settled() { c.landed(c.Head(), false, 0) }

// memory is what this handle knows without asking.
func (c *Catalog) memory() memory {
	p := c.known.Load()
	return memory{claim: c.claim, acked: p.acked, tip: p.tip, sent: p.sent}
}

// ending is why a handle has ended. Only one thing replaces a reason: a newer
// fence, which explains it.
type ending struct {
	done  chan struct{}
	why   atomic.Pointer[error]
	mu    sync.Mutex
	first map[int]context.CancelCauseFunc // called before anybody is told
	next  int
}

func (e *ending) init() {
	e.done = make(chan struct{})
	e.first = make(map[int]context.CancelCauseFunc)
}

// before has cancel called with the reason before anybody is told it, at once
// where that has happened.
func (e *ending) before(cancel context.CancelCauseFunc) (forget func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if reason := e.reason(); reason != nil {
		cancel(reason)
		return func() {}
	}
	e.next++
	key := e.next
	e.first[key] = cancel
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.first, key)
	}
}

func (e *ending) ended() bool { return e.why.Load() != nil }

func (e *ending) reason() error {
	if why := e.why.Load(); why != nil {
		return *why
	}
	return nil
}

// with ends the handle, or makes the reason known better.
func (e *ending) with(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := e.reason()
	if a := (*alarmed)(nil); errors.As(old, &a) && !errors.Is(err, ErrLostCommit) {
		err = &alarmed{fence: err, lost: a.lost}
	}
	if old == nil {
		for _, cancel := range e.first {
			cancel(err)
		}
		e.why.Store(&err)
		close(e.done)
		return
	}
	if explains(err, old) {
		e.why.Store(&err)
	}
}

// explains reports whether a later reason says more than the first one.
func explains(later, first error) bool {
	switch {
	case errors.Is(first, fence.ErrSuperseded), errors.Is(first, ErrClosed):
		return errors.Is(later, ErrLostCommit) && errors.Is(later, fence.ErrSuperseded) && !errors.Is(first, ErrLostCommit)
	case errors.Is(later, fence.ErrSuperseded):
		return true
	case errors.Is(later, fence.ErrFenced):
		return !errors.Is(first, ErrLostCommit)
	default:
		return false
	}
}
