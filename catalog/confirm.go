package catalog

import (
	"context"
	"errors"
	"sync"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// Confirm answers whether this handle still held the token at some moment
// after the call began: nil if so, else the reason why not. It costs one round
// trip, which concurrent calls share; a call never joins one that was sent
// before it began.
//
// An answer is about the past: it excludes no later claim. Only a commit and a
// guard do. Where ctx ends first, its error is returned and nothing is known.
func (c *Catalog) Confirm(ctx context.Context) error {
	if c.end.ended() {
		return c.refusal(ctx)
	}
	if err := c.confirms.do(ctx); err != nil {
		return err
	}
	return c.end.reason()
}

// confirmOnce is one round trip of Confirm. A failure in passing is tried
// again within StoreTimeout.
func (c *Catalog) confirmOnce() error {
	ctx, cancel := context.WithTimeout(c.base, c.cfg.StoreTimeout)
	defer cancel()
	var pace *pace // made by the first failure
	for {
		known := c.memory()
		head, err := c.store.Head(ctx)
		if err == nil {
			return c.confirmed(known, c.memory(), head)
		}
		if !transient(err) {
			return c.endWith(err)
		}
		if pace == nil {
			pace = newPace(c.cfg.StoreTimeout)
		}
		if !pace.wait(ctx) {
			return err
		}
	}
}

// confirmed holds a head against what was known before and after it was asked
// for.
func (c *Catalog) confirmed(before, now memory, head driver.Head) error {
	err := judgeBeside(before, now, head)
	if err != nil {
		return c.endWith(err)
	}
	return nil
}

// refusal returns why the handle has ended. A process that was fenced by epoch
// may have been superseded since, so the newest head is asked once more; where
// it does not answer, the reason that is known stands.
func (c *Catalog) refusal(ctx context.Context) error {
	if exitcodes.Of(c.end.reason()) == exitcodes.Halt {
		_ = c.confirms.do(ctx) // what it finds, it leaves in c.end
	}
	reason := c.end.reason()
	if errors.Is(reason, ErrLostCommit) && !errors.Is(reason, fence.ErrFenced) {
		return c.endWith(reason) // waits for the record of the loss
	}
	return reason
}

// coalescer lets concurrent callers share one question, provided that it has
// not been asked yet when they come. The goroutine that asks begins with the
// first question and stays, so that its stack grows only once.
type coalescer struct {
	ask    func() error
	mu     sync.Mutex
	next   *answer       // not asked yet; nil where nobody waits
	wake   chan struct{} // one for each next; nil before the first
	asking int           // questions under way
	closed bool
	wg     sync.WaitGroup
}

type answer struct {
	done chan struct{}
	err  error
}

// do returns the answer to a question that is asked after do was called.
func (q *coalescer) do(ctx context.Context) error {
	if ctx.Done() == nil && q.lead() {
		defer q.led()
		return q.ask()
	}
	mine, err := q.join()
	if err != nil {
		return err
	}
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lead reports whether the caller may ask by itself: it can wait for as long as
// that takes, and nobody else asks or waits.
func (q *coalescer) lead() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.next != nil || q.asking > 0 {
		return false
	}
	q.asking++
	q.wg.Add(1)
	return true
}

func (q *coalescer) led() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asking--
	q.wg.Done()
}

// join returns the answer to the question that is asked next.
func (q *coalescer) join() (*answer, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, ErrClosed
	}
	if q.wake == nil {
		q.wake = make(chan struct{}, 1)
		q.wg.Go(q.run)
	}
	if q.next == nil {
		q.next = &answer{done: make(chan struct{})}
		q.wake <- struct{}{} // never blocks: the one before was taken with its answer
	}
	return q.next, nil
}

// run asks until the coalescer is closed and nobody waits.
func (q *coalescer) run() {
	for range q.wake {
		q.mu.Lock()
		this := q.next
		q.next = nil
		q.asking++
		q.mu.Unlock()
		this.err = q.ask()
		q.mu.Lock()
		q.asking--
		q.mu.Unlock()
		close(this.done)
	}
}

// close refuses further questions and joins the one under way.
func (q *coalescer) close() {
	q.mu.Lock()
	q.closed = true
	if q.wake != nil {
		close(q.wake)
	}
	q.mu.Unlock()
	q.wg.Wait()
}
