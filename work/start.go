package work

import (
	"context"
	"time"

	"github.com/fencepost/fencepost/catalog"
)

// startClaimed starts the jobs whose claim has landed, and returns how many.
func (d *dispatcher) startClaimed(claims []claimPlan) int {
	var landed []*item
	for _, c := range claims {
		if it := d.book.held[c.id]; it != nil && it.run.Serial == c.next.Serial && d.running[c.id] == nil {
			landed = append(landed, it)
		}
	}
	d.startHeld(landed)
	return len(landed)
}

// startHeld starts jobs that this token has claimed.
func (d *dispatcher) startHeld(items []*item) {
	if len(items) == 0 {
		return
	}
	err := d.c.View(func(r *catalog.Reader) error {
		for _, it := range items {
			d.start(r, it)
		}
		return nil
	})
	if err != nil { // the handle has ended: the jobs are orphans
		d.failing = err
	}
}

// start starts one job. One that can't be read fails for good.
func (d *dispatcher) start(s catalog.Source, it *item) {
	j, err := read(s, it)
	if err != nil {
		err = Permanent(err)
		j = &Job{ID: it.id, Kind: it.shelf.Name, Key: it.key}
	}
	j.claimed(it.run, it.covered())
	r := &run{Job: j, kind: it.shelf.Kind, rec: it.run, at: time.Now(), err: err}
	ctx, cancel := context.WithCancelCause(d.runs)
	r.cancel = cancel
	d.running[it.id] = r
	d.free--
	d.busy[r.Kind]++
	if r.kind.Order != Any {
		d.keys[laneKey{r.Kind, r.Key}]++
	}
	d.wg.Go(func() { d.call(ctx, r) })
}

// call calls the kind's Run and hands the run back, however that ends.
func (d *dispatcher) call(ctx context.Context, r *run) {
	err := errExited
	defer func() {
		r.err, r.stopped = err, context.Cause(ctx)
		r.cancel(nil)
		d.results <- r
	}()
	if r.err != nil {
		err = r.err
		return
	}
	bounded := ctx
	if r.kind.Timeout > 0 {
		var stop context.CancelFunc
		bounded, stop = context.WithTimeoutCause(ctx, r.kind.Timeout, ErrTimeout)
		defer stop()
	}
	err = call(bounded, r.kind, r.Job)
}
