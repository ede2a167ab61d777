package work

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/fencepost/fencepost/fence"
)

// Why a job was claimed.
type cause uint8

const (
	fresh       cause = iota // it has never run
	again                    // after a failure, a stop, or a person's retry
	afterCrash               // its process died, or was fenced by its own generation
	afterDeploy              // its process was superseded
)

// A claimPlan is one job that is to be claimed, or to die because its processes
// have.
type claimPlan struct {
	*item
	was    runRecord // of the item
	next   runRecord
	cause  cause
	taken  []takenRun // of other jobs of the lane, which this one takes over
	covers []*item
	dies   string // why it goes to the dead list in place of a run
}

// A takenRun is a claimed run as the plan found it.
type takenRun struct {
	id  ID
	was runRecord
}

// A plan is what one pass does.
type plan struct {
	start  []*item // whose claim landed, although nobody started them
	claims []claimPlan
}

// plan decides what a pass does. It changes nothing and does no I/O: the same book,
// time and running jobs lead to the same plan. Running says whether an earlier run of
// a job, or of its key, has not returned. Free is how many more jobs may run, and busy
// how many of each kind do.
func (b *book) plan(now time.Time, running func(*item) bool, free int, busy map[string]int) plan {
	var p plan
	for _, it := range b.held {
		if !running(it) && it.shelf.known && !it.stray {
			p.start = append(p.start, it)
		}
	}
	slices.SortFunc(p.start, func(x, y *item) int { return cmp.Compare(x.id, y.id) })
	var found []*item
	for name, s := range b.kinds {
		found = append(found, s.first(min(free, s.Concurrency-busy[name]), running)...)
	}
	slices.SortFunc(found, func(x, y *item) int {
		return cmp.Or(cmp.Compare(y.rank, x.rank), cmp.Compare(x.id, y.id))
	})
	for _, it := range found[:min(free, len(found))] {
		p.claims = append(p.claims, b.claim(it, now))
	}
	return p
}

// first returns the n jobs of a kind that are next. A job has to wait until earlier
// runs of it, and of its key, have returned: a run may go on although its job was
// completed or abandoned.
func (s *shelf) first(n int, running func(*item) bool) (found []*item) {
	s.ready.Scan(func(it *item) bool {
		if len(found) >= n {
			return false
		}
		if !running(it) {
			found = append(found, it)
		}
		return true
	})
	return found
}

// claim says what the claim of what stands for it writes.
func (b *book) claim(it *item, now time.Time) claimPlan {
	c := claimPlan{item: it}
	if it.lane != nil && it.shelf.Order == Latest {
		c.coalesce(now)
	}
	c.was = c.item.run
	before := c.was
	switch {
	case len(c.taken) > 0:
		before = c.taken[len(c.taken)-1].was
	case before.Claim.IsZero():
		for _, other := range c.covers { // a newer job does not begin its key's attempts anew
			if other.run.Attempt > before.Attempt {
				before = other.run
			}
		}
	}
	c.next, c.cause = before.claimed(b.token, now)
	c.next.Serial, c.next.Covers = c.was.Serial+1, len(c.covers)
	if b.elsewhere(c.item) {
		c.next.Adopted = c.item.owner()
	}
	if limit := c.shelf.MaxAttempts; c.cause == afterCrash && limit > 0 && before.Attempt >= limit {
		c.dies = fmt.Sprintf("its process ended %d times while it ran, the last time under %v; %d attempts are allowed", before.Crashed+1, before.Claim, limit)
	}
	return c
}

// coalesce turns the claim to the newest job of the lane that is due.
func (c *claimPlan) coalesce(now time.Time) {
	newest, older := c.lane.newest(now.UnixNano())
	if newest == nil { // the clock was set back a little
		return
	}
	c.item, c.covers = newest, older
	for _, other := range older {
		if !other.run.Claim.IsZero() { // several only if an earlier holder ran the kind in another order
			c.taken = append(c.taken, takenRun{id: other.id, was: other.run})
		}
	}
}

// joins returns how many claims of other jobs end, beyond the one that this run
// follows.
func (c claimPlan) joins() int64 {
	n := len(c.taken)
	if n > 0 && c.was.Claim.IsZero() {
		n--
	}
	return int64(n)
}

// ended returns how many runs under older tokens end with the claim.
func (c claimPlan) ended() int {
	if c.was.Claim.IsZero() {
		return len(c.taken)
	}
	return len(c.taken) + 1
}

// claimed returns the run that follows r under a token, and why there is one. An
// attempt counts unless the run before was interrupted by a deploy.
func (r runRecord) claimed(token fence.Token, now time.Time) (runRecord, cause) {
	next := runRecord{
		Claim: token, Serial: r.Serial + 1, At: now.UTC().Round(0),
		Attempt: r.Attempt, Interrupted: r.Interrupted, Crashed: r.Crashed, Error: r.Error,
	}
	switch {
	case r.Claim.IsZero():
		next.Attempt++
		if r.Serial == 0 {
			return next, fresh
		}
		return next, again
	case r.Claim.Generation == token.Generation:
		next.Attempt++
		next.Crashed++
		next.From = r.Claim
		return next, afterCrash
	default:
		next.Interrupted++
		next.From = r.Claim
		return next, afterDeploy
	}
}
