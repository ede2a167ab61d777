package work

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// An end is what a run that has returned does to its job.
type end uint8

const (
	completes end = iota
	retries
	expires // it goes to the dead list
	releases
)

// An ack is the end of a run that is still to be written.
type ack struct {
	*run
	end    end
	next   runRecord
	reason Reason
}

// acks returns the ends that have to be written, and forgets the runs whose job
// was taken from them or that have completed it themselves.
func (d *dispatcher) acks() []ack {
	var acks []ack
	finished := d.finished
	d.finished = nil
	for _, r := range finished {
		if !d.mine(r) {
			d.forget(r)
			if r.err != nil && r.completed.Load() {
				d.cfg.Logger.Warn("a run failed after its job was completed", "kind", r.Kind, "job", r.ID, "err", r.err)
			}
			continue
		}
		d.finished = append(d.finished, r)
		acks = append(acks, r.ending(time.Now()))
	}
	return acks
}

func (d *dispatcher) forget(r *run) { delete(d.running, r.ID) }

// ending decides what the end of a run does to its job.
func (r *run) ending(now time.Time) ack {
	next := r.rec.ended(now)
	a := ack{run: r, next: next}
	var postponed *later
	switch {
	case r.err == nil:
		a.end = completes
	case r.stopped != nil:
		a.end, a.next = releases, next.released()
	case errors.As(r.err, &postponed):
		a.end = releases
		a.next.Attempt = max(0, next.Attempt-1)
		a.next.wait(postponed.wait)
	case errors.As(r.err, new(*permanent)):
		a.end, a.reason = expires, Refused
	case r.kind.MaxAttempts > 0 && next.Attempt >= r.kind.MaxAttempts:
		a.end, a.reason = expires, Exhausted
	default:
		return r.retrying(next)
	}
	if a.end == expires {
		a.next.Error = clip(r.err.Error(), maxError)
	}
	return a
}

// retrying puts off the next run of a job whose run has failed.
func (r *run) retrying(next runRecord) ack {
	wait, err := r.kind.wait(next.Attempt)
	next.wait(wait)
	text := r.err.Error()
	if err != nil {
		text = fmt.Sprintf("Retry: %v\n%s", err, text)
	}
	next.Error = clip(text, maxError)
	return ack{run: r, end: retries, next: next}
}

// ended returns what follows r once its run has ended.
func (r runRecord) ended(now time.Time) runRecord {
	r.Claim, r.Covers, r.At = fence.Token{}, 0, now.UTC().Round(0)
	return r
}

// released returns what follows r if a stop has interrupted its run: that costs no
// attempt.
func (r runRecord) released() runRecord {
	r.Attempt, r.Interrupted = max(0, r.Attempt-1), r.Interrupted+1
	return r
}

// wait puts off the next run.
func (r *runRecord) wait(d time.Duration) { r.Wait, r.NotBefore = d, r.At.Add(d) }

// write commits ends and claims, together if that fits into one commit.
func (d *dispatcher) write(acks []ack, claims []claimPlan, now time.Time) error {
	var recovered Takeover
	err := d.c.Update(d.writes, func(tx *catalog.Tx) (err error) {
		sums := tally{}
		for _, a := range acks {
			if err := d.writeEnd(tx, sums, a); err != nil {
				return err
			}
		}
		orphans := 0
		for _, c := range claims {
			n, err := d.writeClaim(tx, sums, c)
			if err != nil {
				return err
			}
			orphans += n
		}
		if recovered, err = d.writeTakeover(tx, orphans, now); err != nil {
			return err
		}
		return sums.write(tx)
	})
	switch {
	case err == nil:
		d.acknowledged(acks)
		d.taken = recovered
		return nil
	case !errors.Is(err, driver.ErrTooLarge):
	case len(acks) > 0 && len(claims) > 0:
		return errors.Join(d.write(acks, nil, now), d.write(nil, claims, now))
	case len(acks)+len(claims) > 1:
		a, c := len(acks)/2, len(claims)/2
		return errors.Join(d.write(acks[:a], claims[:c], now), d.write(acks[a:], claims[c:], now))
	case len(acks) == 1 && len(acks[0].covers) > mergeBatch:
		return d.writeCovers(acks, now)
	}
	if d.c.Err() == nil && context.Cause(d.writes) == nil {
		d.cfg.Logger.Warn("a pass was not committed; the next one tries again", "ends", len(acks), "claims", len(claims), "err", err)
	}
	return err
}

// mergeBatch is how many jobs one commit removes because a newer one's run did them.
const mergeBatch = 10_000

// writeCovers completes a run that has done more jobs of its key than one commit
// can remove: the oldest first, and its own job last.
func (d *dispatcher) writeCovers(acks []ack, now time.Time) error {
	r := acks[0].run
	for len(r.covers) > mergeBatch {
		err := d.c.Update(d.writes, func(tx *catalog.Tx) error {
			if _, err := r.mine(tx); err != nil {
				return err
			}
			sums := tally{}
			if err := merge(tx, sums.of(r.Kind), r.covers[:mergeBatch]); err != nil {
				return err
			}
			return sums.write(tx)
		})
		if err != nil {
			return err
		}
		r.covers = r.covers[mergeBatch:]
	}
	return d.write(acks, nil, now)
}

// writeEnd writes the end of a run, unless its job was taken from it meanwhile.
func (d *dispatcher) writeEnd(tx *catalog.Tx, sums tally, a ack) error {
	if _, err := a.mine(tx); errors.Is(err, ErrNotMine) {
		return nil
	} else if err != nil {
		return err
	}
	t := sums.of(a.Kind)
	switch a.end {
	case completes:
		return complete(tx, t, a.ID, a.covers)
	case releases:
		t.Released++
		return runs.Set(tx, a.ID.entry(), a.next)
	case retries:
		t.Failed++
		if err := d.writeFailure(tx, a); err != nil {
			return err
		}
		return runs.Set(tx, a.ID.entry(), a.next)
	default:
		t.Failed++
		if err := d.writeFailure(tx, a); err != nil {
			return err
		}
		return bury(tx, t, a.ID, a.covers, deadRecord{Run: a.next, Reason: a.reason, Text: a.next.Error, At: a.next.At, By: a.Token})
	}
}

func (d *dispatcher) writeFailure(tx *catalog.Tx, a ack) error {
	return fail(tx, Failure{
		ID: a.ID, Kind: a.Kind, Key: a.Key, Attempt: a.next.Attempt, Error: a.next.Error, At: a.next.At,
		Token: a.Token, Took: a.next.At.Sub(a.at), Dead: a.end == expires,
	})
}

// fail adds one of the newest failures.
func fail(tx *catalog.Tx, f Failure) error {
	n, err := take(tx, failureSequence, 1)
	if err != nil {
		return err
	}
	f.Number = n
	return failures.Set(tx, ring(n, kept), f)
}

// bury moves a live job to the dead list, and removes those that its newest run
// would have done too.
func bury(tx *catalog.Tx, t *Totals, id ID, covers []ID, rec deadRecord) error {
	job, found, _, err := readJob(tx, id.entry())
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%w: %d", ErrNotFound, id)
	}
	if rec.Job.Kind != "" { // else its entry says which
		job.Kind = rec.Job.Kind
	}
	rec.Job = job
	if err := dead.Set(tx, id.entry(), rec); err != nil {
		return err
	}
	if err := merge(tx, t, covers); err != nil {
		return err
	}
	t.Died++
	_, err = removeJob(tx, id)
	return err
}

// writeClaim claims a job, or moves it to the dead list, and returns how many runs
// under older tokens end with that.
func (d *dispatcher) writeClaim(tx *catalog.Tx, sums tally, c claimPlan) (ended int, err error) {
	if found, err := c.unmoved(tx); err != nil || !found {
		return 0, err
	}
	t := sums.of(c.shelf.Name)
	switch c.cause {
	case fresh:
		t.Fresh++
	case again:
		t.Again++
	case afterCrash:
		t.AfterCrash++
	case afterDeploy:
		t.AfterDeploy++
	}
	t.Joined += c.joins()
	for _, other := range c.taken {
		other.was.Claim = fence.Token{}
		if err := runs.Set(tx, other.id.entry(), other.was); err != nil {
			return 0, err
		}
	}
	if c.dies == "" {
		return c.ended(), runs.Set(tx, c.id.entry(), c.next)
	}
	t.Lapsed++
	rec := deadRecord{Run: c.next, Reason: Exhausted, Text: c.dies, At: c.next.At, By: d.book.token}
	rec.Run.Claim = fence.Token{}
	err = fail(tx, Failure{ID: c.id, Kind: c.shelf.Name, Key: c.key, Attempt: c.next.Attempt - 1, Error: c.dies, At: rec.At, Token: c.next.From, Dead: true})
	if err != nil {
		return 0, err
	}
	return c.ended(), bury(tx, t, c.id, ids(c.covers), rec)
}

// unmoved reports whether the jobs are still as the plan found them.
func (c claimPlan) unmoved(tx *catalog.Tx) (bool, error) {
	for _, r := range append(c.taken[:len(c.taken):len(c.taken)], takenRun{id: c.id, was: c.was}) {
		_, found, err := catalog.Bytes(jobs.Name()).Get(tx, r.id.entry())
		if err != nil || !found {
			return false, err
		}
		run, _, err := runs.Get(tx, r.id.entry())
		if err != nil || run.Serial != r.was.Serial || run.Claim != r.was.Claim {
			return false, err
		}
	}
	return true, nil
}

// acknowledged forgets the runs whose end has landed.
func (d *dispatcher) acknowledged(acks []ack) {
	for _, a := range acks {
		d.forget(a.run)
		if a.end == expires || a.end == retries {
			d.cfg.Logger.Warn("a job has failed", "kind", a.Kind, "job", a.ID, "key", a.Key, "attempt", a.next.Attempt,
				"retry_in", a.next.Wait, "dead", a.end == expires, "err", a.err)
		}
	}
	left := d.finished[:0]
	for _, r := range d.finished {
		if d.running[r.ID] == r {
			left = append(left, r)
		}
	}
	clear(d.finished[len(left):])
	d.finished = left
}
