package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/step"
)

// What shares one commit is bounded in number and in bytes: one that is larger
// gains nothing by it, and may not arrive before its time is over. A single
// Update may be as large as the store takes.
const (
	maxBatch  = 256
	maxShared = 4 << 20
)

// commitLoop gathers what waits in the queue into one commit after the other.
// It ends as the committer, so that nobody else commits after it.
func (c *Catalog) commitLoop() {
	finished := false
	defer func() {
		if finished {
			close(c.idle)
			return
		}
		c.outliveGoexit()
	}()
	for {
		first, ok := c.next()
		c.pending.Store(true)
		c.committer.Lock()
		c.pending.Store(false)
		if !ok {
			break
		}
		c.batch = c.gather(first)
		c.commitBatch(c.batch)
		c.alone = len(c.batch) <= 1
		c.committer.Unlock()
	}
	c.inquest()
	finished = true
}

// commitAlone commits an Update on its caller's goroutine, where nobody else is
// committing or waiting, and reports whether it did. Two changes of goroutine
// cost a tenth of a commit. Where the last commit was shared, there is more to
// gain from sharing this one.
func (c *Catalog) commitAlone(r *request) bool {
	if !c.committer.TryLock() {
		return false
	}
	defer c.committer.Unlock()
	if !c.alone || c.pending.Load() || len(c.queue) > 0 || !r.take() {
		return false
	}
	c.commitBatch([]*request{r})
	c.alone = !c.pending.Load() && len(c.queue) == 0
	return true
}

// outliveGoexit goes on after a caller's function has ended the commit loop's
// goroutine. Of the batch nothing was sent: all functions are run before that.
func (c *Catalog) outliveGoexit() {
	for _, r := range c.batch {
		r.done <- errGoexit
	}
	c.committer.Unlock()
	c.wg.Go(c.commitLoop)
}

// next waits for a request. It returns false once the handle is to end and
// nothing is left to answer.
func (c *Catalog) next() (*request, bool) {
	select {
	case r := <-c.queue:
		return r, true
	case <-c.end.done:
		return nil, false
	case <-c.closing:
	}
	select {
	case r := <-c.queue:
		return r, true
	default:
		return nil, false
	}
}

// gather returns a request with those behind it in the queue.
func (c *Catalog) gather(first *request) []*request {
	batch := taken(nil, first)
	for len(batch) < maxBatch {
		select {
		case r := <-c.queue:
			batch = taken(batch, r)
		default:
			return batch
		}
	}
	return batch
}

func taken(batch []*request, r *request) []*request {
	if r.take() {
		return append(batch, r)
	}
	return batch
}

// A group is a run of requests that share one commit.
type group struct {
	payload  []byte
	next     *state // what the commit leads to; nil while nothing is changed
	requests []*request
	results  []error
}

func (g *group) add(r *request, result error) {
	g.requests = append(g.requests, r)
	g.results = append(g.results, result)
}

// commitBatch runs the functions of a batch, commits what they changed, in
// order, and answers every one. Where one commit fails, those after it were
// computed on what it would have written, and fail with it.
func (c *Catalog) commitBatch(batch []*request) {
	var fate error
	for _, g := range c.compute(batch) {
		if fate == nil && g.next != nil {
			fate = c.commit(g.payload, g.next)
		}
		for i, r := range g.requests {
			if fate != nil {
				r.done <- fate
				continue
			}
			r.done <- g.results[i]
		}
		if fate == nil && g.next != nil {
			step.Reach(c.base, step.CommitAcked)
		}
	}
}

// compute runs the functions of a batch, each on top of those before, and
// groups them so that each group fits into one commit.
func (c *Catalog) compute(batch []*request) []*group {
	limit := c.store.Limits().Payload
	work := c.state.Load()
	this := &group{payload: newPayload()}
	groups := []*group{this}
	for _, r := range batch {
		next, changes, err := r.run(work)
		if r.panicked != nil {
			c.cfg.Logger.ErrorContext(c.base, "a function given to Update panicked", "panic", fmt.Sprint(r.panicked.value))
		}
		if err != nil || len(changes) == 0 {
			this.add(r, err)
			continue
		}
		alone := appendChanges(newPayload(), changes)
		if len(alone) > limit {
			this.add(r, fmt.Errorf("catalog: %w: %d bytes of changes in one Update, %s takes %d: split it",
				driver.ErrTooLarge, len(alone), c.store, limit))
			continue
		}
		if this.next != nil && len(this.payload)+len(alone) > min(limit, maxShared) {
			this = &group{payload: newPayload()}
			groups = append(groups, this)
		}
		work = next
		this.payload, this.next = append(this.payload, alone[1:]...), work
		this.add(r, nil)
	}
	return groups
}

// commit appends one record, and publishes the state that it leads to.
func (c *Catalog) commit(payload []byte, next *state) error {
	readBack, err := c.appendNext(payload, next)
	if err != nil || !readBack {
		return err
	}
	return c.settle(c.cfg.RetryBudget)
}

// appendNext lands one record behind the last acknowledged one.
func (c *Catalog) appendNext(payload []byte, next *state) (readBack bool, err error) {
	head := *c.acked.Load()
	rec := driver.Record{Revision: head.Revision + 1, ID: driver.NewID(), Token: c.claim.Token, Payload: payload}
	if readBack, err = c.land(head, rec); err != nil {
		return false, err
	}
	head = head.After(rec)
	c.state.Store(next)
	c.acked.Store(&head)
	c.grown(int64(len(payload)), moment{head: head, state: next})
	return readBack, nil
}

// settle makes sure that what was found in the head is durable, by a further
// commit, an empty one, whose answer arrives. Where a claim came in between
// that was built on what was found, it is durable too.
func (c *Catalog) settle(budget time.Duration) error {
	pace := newPace(budget)
	for {
		readBack, err := c.appendNext(newPayload(), c.state.Load())
		switch {
		case err == nil && readBack:
			if pace.wait(c.trying) {
				continue
			}
			return &outcomeError{exitcodes.With(fmt.Errorf("%s: commits land, and no answer to one has arrived", c.store), exitcodes.Retry)}
		case errors.Is(err, fence.ErrFenced):
			return c.builtUpon(err)
		case err != nil:
			return &outcomeError{err}
		}
		return nil
	}
}

// builtUpon returns nil where the claim that fenced this handle was built on
// its last commit, which so is durable.
func (c *Catalog) builtUpon(fenced error) error {
	_, err := c.successor(c.memoryWithDoubt())
	if errors.Is(err, ErrLostCommit) {
		c.alarm(err)
		return c.end.reason()
	}
	if err != nil {
		return &outcomeError{fenced}
	}
	return nil
}

// land sends rec until its fate is known: nil once it has landed, and whether
// that was seen in the head rather than answered. Every try is the same record
// on the same condition, so that one of them lands at most.
func (c *Catalog) land(head driver.Head, rec driver.Record) (readBack bool, err error) {
	m := memory{claim: c.claim, acked: head}
	pace := newPace(c.cfg.RetryBudget)
	for {
		if c.end.ended() {
			return false, c.aftermath(m)
		}
		err := writeStore(c.base, c.cfg.StoreTimeout, func(ctx context.Context) error {
			return c.store.Append(ctx, head, rec)
		})
		if err == nil {
			return false, nil
		}
		if errors.Is(err, driver.ErrConflict) {
			v, verr := c.ask(m)
			if v == landed {
				return true, nil
			}
			if verr != nil {
				err = verr
			}
		} else if driver.OutcomeOf(err) == driver.Unknown {
			m.doubt = rec.ID
		}
		if done, err := c.giveUp(m, pace, err); done {
			return false, err
		}
		c.cfg.Logger.InfoContext(c.base, "commit is tried again", "store", c.store.String(), "revision", rec.Revision, "err", err)
	}
}

// ask judges by the newest head.
func (c *Catalog) ask(m memory) (verdict, error) {
	head, err := callStore(c.base, c.cfg.StoreTimeout, c.store.Head)
	if err != nil {
		return unmoved, err
	}
	return judge(m, head)
}

// giveUp says whether a commit that failed with err is not to be tried again,
// and what its callers are told.
func (c *Catalog) giveUp(m memory, pace *pace, err error) (bool, error) {
	switch {
	case errors.Is(err, fence.ErrFenced):
		c.end.with(err)
		return true, c.aftermath(m)
	case errors.Is(err, driver.ErrConflict), transient(err):
		if pace.wait(c.trying) {
			return false, nil
		}
		if m.doubt.IsZero() {
			return true, err
		}
	case exitcodes.Of(err) == exitcodes.None && m.doubt.IsZero():
		return true, err // it concerns this commit only
	}
	if !m.doubt.IsZero() {
		c.doubt = m.doubt
		err = &outcomeError{err}
	}
	c.end.with(err)
	return true, err
}

// aftermath says what became of a commit of a handle that has ended: nil if it
// had landed. The claim that follows mine tells, for ever.
func (c *Catalog) aftermath(m memory) error {
	reason := c.end.reason()
	if m.doubt.IsZero() {
		return reason
	}
	if !errors.Is(reason, fence.ErrFenced) {
		c.doubt = m.doubt
		return &outcomeError{reason}
	}
	v, err := c.successor(m)
	switch {
	case errors.Is(err, ErrLostCommit):
		c.alarm(err)
		return c.end.reason()
	case err != nil:
		c.doubt = m.doubt
		return &outcomeError{reason}
	case v == landed:
		return nil
	}
	return c.end.reason()
}

// successor judges by the claim that follows mine.
func (c *Catalog) successor(m memory) (v verdict, err error) {
	pace := newPace(c.cfg.RetryBudget)
	for {
		var next *driver.Claim
		err = writeStore(c.base, c.cfg.StoreTimeout, func(ctx context.Context) error {
			return c.store.Claims(ctx, c.claim.Revision, func(found driver.Claim) error {
				next = &found
				return errEnough
			})
		})
		if next != nil {
			return judgeSuccessor(m, *next)
		}
		if err == nil {
			return unmoved, lostCommit("my claim %v was fenced, and no claim follows it in the history", c.claim.Token)
		}
		if !transient(err) || !pace.wait(c.trying) {
			return unmoved, err
		}
	}
}

// inquest looks, after the last commit of a fenced handle, whether the claim
// that follows mine was built on everything that was acknowledged.
func (c *Catalog) inquest() {
	if reason := c.end.reason(); !errors.Is(reason, fence.ErrFenced) || errors.Is(reason, ErrLostCommit) {
		return
	}
	if _, err := c.successor(c.memoryWithDoubt()); errors.Is(err, ErrLostCommit) {
		c.alarm(err)
	}
}

// memoryWithDoubt is what this handle knows, with the commit that stayed in
// doubt, on which a claim may have been built. It is the committer's.
func (c *Catalog) memoryWithDoubt() memory {
	m := c.memory()
	m.doubt = c.doubt
	return m
}

// alarm records that acknowledged commits were lost at the fence.
func (c *Catalog) alarm(lost error) {
	c.cfg.Logger.ErrorContext(c.base, "acknowledged commits were lost", "store", c.store.String(), "err", lost)
	c.end.with(&alarmed{fence: c.end.reason(), lost: lost})
}
