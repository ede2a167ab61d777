package catalog

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/closing"
)

// Update calls fn to read and change entries, and returns nil once its changes
// have landed in one atomic commit under this handle's token. Concurrent
// Updates share commits; their functions run one after the other, in the order
// in which they were queued, each on top of the one before. So fn must be
// quick, and is called once at most. It must not wait for another Update of the
// same catalog: if fn itself calls Update, that fails at once with
// [ErrReentrant]; if a goroutine that fn waits for does, both wait until the
// context of that Update ends.
//
// Where fn returns an error, nothing of it is written, and Update returns that
// error; if fn saw changes that had not landed yet, only once they have.
//
// Otherwise an error means that nothing was written and never will be, unless
// it matches [ErrUnknownOutcome]. *fence.Error: another process holds the token
// now. [ErrClosed]: the handle was closed. *driver.Error: the store failed, and
// for longer than RetryBudget if in passing. driver.ErrTooLarge: the changes
// don't fit into one commit.
//
// The end of ctx ends only the waiting. Before the commit was begun nothing is
// written and ctx's cause is returned; later the error matches
// ErrUnknownOutcome, the commit goes on, and fn may still be running. The contexts of
// leader.Work and exitcodes.Main have a deadline once they have ended. Under these,
// Update waits for the commit for half of the time that is left, and for StoreTimeout at
// most. So a handover leaves no write unknown.
//
// Fn runs on a goroutine of the catalog's or on the caller's; one that ends its
// goroutine (t.FailNow does) writes nothing.
//
// Where fn changes nothing, nothing is written and the store is not asked: such
// an Update says no more about a claim of another process than View does.
func (c *Catalog) Update(ctx context.Context, fn func(*Tx) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if c.running.isCaller() {
		return ErrReentrant
	}
	if c.end.ended() {
		return c.refusal(ctx)
	}
	select {
	case <-c.closing: // the select below picks at random
		return ErrClosed
	default:
	}
	r := &request{fn: fn, done: make(chan error, 1)}
	if ctx.Done() == nil && c.commitAlone(r) {
		return r.result(<-r.done)
	}
	select {
	case c.queue <- r:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.closing:
		return ErrClosed
	case <-c.end.done:
		return c.end.reason()
	}
	return c.await(ctx, r)
}

// await waits for the fate of a queued request. One that the committer has not
// taken yet is told why the handle has ended as soon as that is known.
func (c *Catalog) await(ctx context.Context, r *request) error {
	for ended := c.end.done; ; {
		select {
		case err := <-r.done:
			return r.result(err)
		case <-ended:
			if r.withdraw() {
				return c.end.reason()
			}
			ended = nil // what the committer took, it answers
		case <-ctx.Done():
			if r.withdraw() {
				return context.Cause(ctx)
			}
			if err, ok := r.answered(min(closing.Left(ctx)/2, c.cfg.StoreTimeout)); ok {
				return r.result(err)
			}
			return &outcomeError{context.Cause(ctx)}
		}
	}
}

// answered waits for the answer to a request that the committer has taken. Ok is false
// if none has come within the time.
func (r *request) answered(within time.Duration) (err error, ok bool) {
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case err := <-r.done: // both may be ready
		return err, true
	default:
	}
	select {
	case err := <-r.done:
		return err, true
	case <-late.C:
		return nil, false
	}
}

// A request is one Update in the queue.
type request struct {
	fn       func(*Tx) error
	done     chan error // receives one answer, if the request was taken
	taken    atomic.Bool
	panicked *panicked
}

// take reserves the request for the committer, right before its function is
// called; withdraw, for its caller. One of them succeeds.
func (r *request) take() bool     { return r.taken.CompareAndSwap(false, true) }
func (r *request) withdraw() bool { return r.take() }

// panicked is a panic of a caller's function, on its way back to the caller.
type panicked struct {
	value any
	stack []byte
}

// result hands a panic of the caller's function on to the caller.
func (r *request) result(err error) error {
	if r.panicked != nil {
		panic(fmt.Sprintf("%v\n\nin a function given to Update:\n%s", r.panicked.value, r.panicked.stack))
	}
	return err
}

// run calls the request's function, and returns what it leads to.
func (r *request) run(now *state, token fence.Token) (next *state, changes []Change, err error) {
	defer func() {
		if v := recover(); v != nil {
			r.panicked = &panicked{value: v, stack: debug.Stack()}
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return transact(now, token, r.fn)
}
