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
	next   runRecord
	cause  cause
	taken  *item // whose run is taken over, if that is another job of the lane
	covers []*item
	dies   string // why it goes to the dead list in place of a run
}

// A plan is what one pass does.
type plan struct {
	start  []*item // whose claim landed, although nobody started them
	claims []claimPlan
}

// plan decides what a pass does. It changes nothing and does no I/O: the same book,
// time and running jobs lead to the same plan. Free is how many more jobs may run,
// and busy how many of each kind do.
func (b *book) plan(now time.Time, running func(ID) bool, free int, busy map[string]int) plan {
	var p plan
	for id, it := range b.held {
		if !running(id) && it.shelf.known && !it.stray {
			p.start = append(p.start, it)
		}
	}
	slices.SortFunc(p.start, func(x, y *item) int { return cmp.Compare(x.id, y.id) })
	var found []*item
	for name, s := range b.kinds {
		found = append(found, s.first(min(free, s.Concurrency-busy[name]))...)
	}
	slices.SortFunc(found, func(x, y *item) int {
		return cmp.Or(cmp.Compare(y.rank, x.rank), cmp.Compare(x.id, y.id))
	})
	for _, it := range found[:min(free, len(found))] {
		p.claims = append(p.claims, b.claim(it, now))
	}
	return p
}

// first returns the n jobs of a kind that are next.
func (s *shelf) first(n int) (found []*item) {
	s.ready.Scan(func(it *item) bool {
		if len(found) >= n {
			return false
		}
		found = append(found, it)
		return true
	})
	return found
}

// claim says what the claim of what stands for it writes.
func (b *book) claim(it *item, now time.Time) claimPlan {
	c := claimPlan{item: it}
	before := it.run
	if l := it.lane; l != nil && l.shelf.Order == Latest {
		c.item, c.covers = l.newest(now.UnixNano())
		before = c.item.run
		for _, other := range append(c.covers, c.item) {
			switch {
			case !other.run.Claim.IsZero(): // at most one of a lane is
				before, c.taken = other.run, other
			case c.taken == nil && other.run.Attempt >= before.Attempt:
				before = other.run
			}
		}
		if c.taken == c.item {
			c.taken = nil
		}
	}
	c.next, c.cause = before.claimed(b.token, now)
	c.next.Serial = c.item.run.Serial + 1
	c.next.Covers = len(c.covers)
	c.next.Adopted = c.item.owner()
	if !b.elsewhere(c.item) {
		c.next.Adopted = ""
	}
	if limit := c.shelf.MaxAttempts; c.cause == afterCrash && limit > 0 && before.Attempt >= limit {
		c.dies = fmt.Sprintf("its process ended %d times while it ran, the last time under %v; %d attempts are allowed", before.Crashed+1, before.Claim, limit)
	}
	return c
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
