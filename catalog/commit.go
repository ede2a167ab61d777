package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	logpace "github.com/fencepost/fencepost/internal/pace"
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
	if !c.alone || c.pending.Load() || len(c.queue) > 0 {
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
		r.take() // nobody waits for one that was withdrawn
		r.done <- errGoexit
	}
	c.committer.Unlock()
	go c.commitLoop()
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
	batch := []*request{first}
	for len(batch) < maxBatch {
		select {
		case r := <-c.queue:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// A group is a run of requests that share one commit.
type group struct {
	payload  []byte
	changes  []Change
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
	c.unsent = c.compute(batch)
	for len(c.unsent) > 0 {
		g := c.unsent[0]
		c.unsent = c.unsent[1:]
		if g.next == nil {
			g.answer(nil)
			continue
		}
		err := c.commit(g.payload, g.changes, g.next)
		g.answer(err)
		if err != nil {
			c.answerUnsent(err)
			return
		}
		step.Reach(c.base, step.CommitAcked)
	}
}

// answer gives every request of the group the fate of its commit, and its own
// result where that is well.
func (g *group) answer(fate error) {
	for i, r := range g.requests {
		if fate != nil {
			r.done <- fate
			continue
		}
		r.done <- g.results[i]
	}
}

// answerUnsent answers the groups of the batch that were not sent, and will not
// be: of those nothing is in doubt, so that they need not wait for what is.
func (c *Catalog) answerUnsent(err error) {
	for _, g := range c.unsent {
		g.answer(err)
	}
	c.unsent = nil
}

// compute runs the functions of a batch, each on top of those before, and
// groups them so that each group fits into one commit.
func (c *Catalog) compute(batch []*request) []*group {
	limit := c.store.Limits().Payload
	work := c.state.Load()
	this := &group{payload: newPayload()}
	groups := []*group{this}
	for _, r := range batch {
		if !r.take() {
			continue
		}
		if reason := c.end.reason(); reason != nil {
			r.done <- reason
			continue
		}
		var next *state
		var changes []Change
		var err error
		c.running.call(func() { next, changes, err = r.run(work, c.claim.Token) })
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
		this.payload, this.changes, this.next = append(this.payload, alone[1:]...), append(this.changes, changes...), work
		this.add(r, nil)
	}
	return groups
}

// An effort is how long, and under which contexts, one commit is tried.
type effort struct {
	trying context.Context // ends the trying
	calls  context.Context // of the calls of the store, each under a deadline of its own
	budget time.Duration
	pace   *pace
}

func newEffort(trying, calls context.Context, budget time.Duration) effort {
	return effort{trying: trying, calls: calls, budget: budget, pace: newPace(budget)}
}

// anew is the effort of asking what became of the commit.
func (e effort) anew() effort { return newEffort(e.trying, e.calls, e.budget) }

// once is that of asking a single time.
func (e effort) once() effort { return newEffort(e.trying, e.calls, 0) }

// effort returns that of one commit. Its calls are not cut short: they may carry
// the work of many callers, and one that was cut has an unknown outcome.
func (c *Catalog) effort() effort {
	return newEffort(c.trying, context.WithoutCancel(c.base), c.cfg.RetryBudget)
}

// effortWithin returns that of a commit which a single caller waits for, until
// ctx ends.
func (c *Catalog) effortWithin(ctx context.Context) effort {
	return newEffort(ctx, ctx, min(c.cfg.RetryBudget, remaining(ctx)))
}

// commit appends one record, and publishes the state that it leads to.
func (c *Catalog) commit(payload []byte, changes []Change, next *state) error {
	e := c.effort()
	if p := c.known.Load(); p.acked.Commit != p.tip.Commit {
		// An earlier commit that is not settled comes first. A reader of the log then
		// knows of every commit with changes that those before it were acknowledged.
		if err := c.settle(e); err != nil {
			return notSent(err)
		}
	}
	readBack, err := c.appendNext(e, payload, changes, next)
	if err != nil || !readBack {
		return err
	}
	return c.settle(e)
}

// appendNext lands one record behind the last acknowledged one.
func (c *Catalog) appendNext(e effort, payload []byte, changes []Change, next *state) (readBack bool, err error) {
	head := c.Head()
	rec := driver.Record{Revision: head.Revision + 1, ID: driver.NewID(), Token: c.claim.Token, Payload: payload}
	if readBack, err = c.land(e, head, rec); err != nil {
		return false, err
	}
	head = head.After(rec)
	c.publish(next, changes)
	c.landed(head, readBack, int64(len(payload)))
	return readBack, nil
}

// hearsay is what the answers to the tries of one commit leave open, where none
// was nil.
type hearsay uint8

const (
	refused    hearsay = iota // nothing: none was sent, or each was refused for good
	conflicted                // a copy of the commit may have landed before the one that was answered
	unsure                    // any copy may have landed, or may land later
)

// land sends rec until its fate is known: nil once it has landed, and whether
// that was seen in the head rather than answered. Every try is the same record
// on the same condition, so that one of them lands at most.
func (c *Catalog) land(e effort, head driver.Head, rec driver.Record) (readBack bool, err error) {
	heard := refused
	var failing logpace.Pace
	for sent := false; ; sent = true {
		if c.end.ended() {
			return false, c.aftermath(e, heard)
		}
		if !sent {
			c.sending(rec.ID)
		}
		_, err := callStore(e.calls, c.cfg.StoreTimeout, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, c.store.Append(ctx, head, rec)
		})
		switch {
		case err == nil:
			return false, nil
		case errors.Is(err, driver.ErrConflict):
			heard = max(heard, conflicted)
			v, read, verr := c.ask(e)
			if v == landed {
				return true, nil
			}
			if verr != nil {
				err = verr
			}
			if !read {
				heard = unsure
			}
		case driver.OutcomeOf(err) == driver.Unknown:
			heard = unsure
		}
		done, landed, err := c.giveUp(e, heard, err)
		if done {
			return landed, err
		}
		if left, due := failing.Fail(time.Now()); due {
			c.cfg.Logger.InfoContext(c.base, "commit is tried again", "revision", rec.Revision, "err", err, "more", left)
		}
	}
}

// ask judges by the newest head, and reports whether that was read.
func (c *Catalog) ask(e effort) (v verdict, read bool, err error) {
	head, err := callStore(e.calls, c.cfg.StoreTimeout, c.store.Head)
	if err != nil {
		return unmoved, false, err
	}
	v, err = judge(c.memory(), head)
	return v, true, err
}

// giveUp says whether a commit that failed with err is not to be tried again,
// and what its callers are told.
func (c *Catalog) giveUp(e effort, heard hearsay, err error) (done, readBack bool, _ error) {
	switch {
	case errors.Is(err, fence.ErrFenced):
		c.end.with(err)
		return true, false, c.aftermath(e, heard)
	case errors.Is(err, driver.ErrConflict), transient(err):
		if e.pace.wait(e.trying) {
			return false, false, err
		}
		if heard < unsure {
			return c.letGo(e, err)
		}
	case exitcodes.Of(err) == exitcodes.None && heard < unsure:
		return c.letGo(e, err) // it concerns this commit only
	}
	if heard == unsure {
		err = &outcomeError{err}
	}
	return true, false, c.endWith(err)
}

// letGo ends the tries of a commit that the store has refused for good, unless
// the head bears it: then a copy of it had landed.
func (c *Catalog) letGo(e effort, refusal error) (done, readBack bool, err error) {
	if v, _, _ := c.ask(e); v == landed {
		return true, true, nil
	}
	return true, false, refusal
}

// aftermath says what became of a commit of a handle that has ended: nil if it
// had landed. The claim that follows mine tells, for ever.
func (c *Catalog) aftermath(e effort, heard hearsay) error {
	reason := c.end.reason()
	c.answerUnsent(reason)
	if heard == refused {
		return reason
	}
	if !errors.Is(reason, fence.ErrFenced) {
		if heard == unsure {
			return &outcomeError{reason}
		}
		return reason
	}
	asking := e.anew()
	if heard == conflicted {
		asking = e.once() // it has hardly landed
	}
	v, err := c.successor(asking)
	switch {
	case errors.Is(err, ErrLostCommit):
		c.alarm(err)
		return c.end.reason()
	case err != nil:
		return &outcomeError{reason}
	case v == landed:
		return nil
	}
	return c.end.reason()
}

// successor judges by the claim that follows mine.
func (c *Catalog) successor(e effort) (v verdict, err error) {
	for {
		var next *driver.Claim
		_, err = callStore(e.calls, c.cfg.StoreTimeout, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, c.store.Claims(ctx, c.claim.Revision, func(found driver.Claim) error {
				next = &found
				return errEnough
			})
		})
		if next != nil {
			return judgeSuccessor(c.memory(), *next)
		}
		if err == nil {
			return unmoved, lostCommit(c.memory().acked, c.Head(), "my claim %v was fenced, and no claim follows it in the history", c.claim.Token)
		}
		if !transient(err) || !e.pace.wait(e.trying) {
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
	if _, err := c.successor(c.effort()); errors.Is(err, ErrLostCommit) {
		c.alarm(err)
	}
}

// alarm records that acknowledged commits were lost at the fence.
func (c *Catalog) alarm(lost error) {
	lost = c.store.reportLoss(c.base, c.cfg, lost)
	c.cfg.Logger.ErrorContext(c.base, "acknowledged commits were lost", "store", c.store.String(), "err", lost)
	c.end.with(&alarmed{fence: c.end.reason(), lost: lost})
}
