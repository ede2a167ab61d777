package reap

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/clock"
)

// A fate is what has become of an item. Each item that was listed has one.
type fate int

const (
	left fate = iota // to be deleted, not tried yet
	deleted
	gone
	vanished
	failed
	keptCurrent
	keptGeneration
	keptYoung
	keptInUse
	keptUnlabelled
	keptUndated
	fates
)

// final reports whether a later listing of the item changes nothing.
func (f fate) final() bool { return f == deleted || f == gone || f == failed }

// A run is one pass.
type run struct {
	src Source
	now fence.Token
	p   Policy

	spared generation.Generation // the lowest one whose items are kept

	id    string        // of this pass, in the lock file
	asked time.Duration // boot-time clock
	began time.Time
	held  *Held // nil if the lock is not held, or there is none

	fates  map[string]fate
	counts [fates]int
	list   []Item        // those left, the oldest first
	stale  bool          // list has to be read before anything is deleted
	waited WaitReason    // of the wait since the last call of the source, if there was one
	listed time.Duration // boot-time clock, when the last listing began

	conflicts int
	spent     time.Duration // of MaxWait
	report    Report
}

func newRun(src Source, now fence.Token, p Policy) *run {
	return &run{
		src: src, now: now, p: p, spared: p.spares(now.Generation), id: rand.Text(), asked: clock.Boot(), began: time.Now(), stale: true,
		fates: map[string]fate{}, report: Report{Waits: map[WaitReason]Waited{}},
	}
}

// An end is a stop that some step of the pass came to.
type end struct {
	stop Stop
	err  error // that Pass returns; may be nil
}

// run works until something ends it.
func (r *run) run(ctx context.Context) (err error) {
	defer func() {
		if r.held != nil { // also behind a panic of the source
			err = errors.Join(err, r.held.Unlock())
		}
	}()
	for {
		if e := r.step(ctx); e != nil {
			r.report.Stopped = e.stop
			r.share(e)
			return e.err
		}
	}
}

// step does the next thing: it takes the lock, waits, lists, or deletes one item. It
// returns nil if the pass goes on.
func (r *run) step(ctx context.Context) *end {
	if cause := context.Cause(ctx); cause != nil {
		return &end{StoppedContext, cause}
	}
	if r.held == nil && r.p.Lock != "" {
		return r.acquire(ctx)
	}
	if !r.stale {
		if e := r.finished(); e != nil {
			return e
		}
	}
	if d, why := r.p.Throttle.Pause(); d > 0 && !r.paced() {
		return r.pause(ctx, d, why, r.p.Throttle.String())
	}
	if r.stale {
		return r.relist(ctx)
	}
	return r.deleteOldest(ctx)
}

// finished returns an end if nothing is left that may be deleted now.
func (r *run) finished() *end {
	if len(r.list) == 0 {
		return &end{stop: StoppedDone}
	}
	ripe := r.list[0].At.Add(r.p.MinAge)
	if r.p.MinAge == 0 || !ripe.After(time.Now()) {
		return nil
	}
	for _, item := range r.list { // the oldest is too young, so all are
		r.set(item.ID, keptYoung)
	}
	r.list, r.report.Ripe = nil, ripe
	r.told()
	return &end{stop: StoppedYoung}
}

// relist reads what there is.
func (r *run) relist(ctx context.Context) *end {
	r.report.Lists++
	r.listed = clock.Boot()
	var items []Item
	err := r.call(ctx, func(ctx context.Context) (err error) {
		items, err = r.src.List(ctx)
		return err
	})
	var limited *LimitedError
	if errors.As(err, &limited) {
		return r.refused(ctx, limited)
	}
	if err != nil {
		return r.ended(ctx, err, &end{StoppedList, fmt.Errorf("reap: list: %w", err)})
	}
	r.learn()
	if slices.ContainsFunc(items, func(item Item) bool { return item.ID == "" }) {
		return &end{StoppedList, errors.New("reap: list: an item has no ID, by which it could be told from others")}
	}
	r.stale = false
	r.sort(items)
	r.told()
	return r.room()
}

// sort gives each listed item its fate.
func (r *run) sort(items []Item) {
	newest := map[string]Item{}
	for _, item := range items {
		if other, ok := newest[item.ID]; !ok || item.Made.Compare(other.Made) > 0 || item.Made == other.Made && item.At.After(other.At) {
			newest[item.ID] = item
		}
	}
	for id, f := range r.fates {
		if _, listed := newest[id]; !listed && !f.final() {
			r.set(id, vanished)
		}
	}
	r.list = nil
	for id, item := range newest {
		if f, known := r.fates[id]; known && f.final() {
			continue
		}
		f := r.classify(item)
		r.set(id, f)
		if f == left {
			r.list = append(r.list, item)
		}
	}
	slices.SortFunc(r.list, func(a, b Item) int {
		return cmp.Or(a.At.Compare(b.At), a.Made.Compare(b.Made), cmp.Compare(a.ID, b.ID))
	})
}

// classify says why an item is kept, or left.
func (r *run) classify(item Item) fate {
	switch {
	case item.Made.IsZero():
		return keptUnlabelled
	case item.Made.Generation >= r.now.Generation:
		return keptCurrent
	case item.Made.Generation >= r.spared:
		return keptGeneration
	case item.At.IsZero() && r.p.MinAge > 0:
		return keptUndated
	default:
		return left
	}
}

// deleteOldest tries to delete the first item, which leaves the list before.
func (r *run) deleteOldest(ctx context.Context) *end {
	item := r.list[0]
	r.list = r.list[1:]
	used, err := r.inUse(ctx, item)
	if err == nil && used {
		r.set(item.ID, keptInUse)
		r.told()
		return nil
	}
	if err == nil {
		err = r.call(ctx, func(ctx context.Context) error { return r.src.Delete(ctx, item) })
	}
	var limited *LimitedError
	switch {
	case errors.Is(err, fence.ErrFenced):
		return r.fail(ctx, item, err)
	case err == nil:
		r.learn()
		r.set(item.ID, deleted)
		r.told()
		return nil
	case errors.Is(err, ErrGone):
		r.learn()
		r.set(item.ID, gone)
		r.told()
		return r.conflict(ctx, item)
	case errors.As(err, &limited):
		r.list = slices.Insert(r.list, 0, item)
		return r.refused(ctx, limited)
	default:
		return r.fail(ctx, item, err)
	}
}

func (r *run) inUse(ctx context.Context, item Item) (used bool, err error) {
	if r.p.InUse == nil {
		return false, nil
	}
	err = r.bounded(ctx, func(ctx context.Context) error {
		used, err = r.p.InUse(ctx, item)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("is it in use: %w", err)
	}
	return used, nil
}

// fail counts a failure.
func (r *run) fail(ctx context.Context, item Item, err error) *end {
	r.set(item.ID, failed)
	r.report.Failures = append(r.report.Failures, Failure{item, err})
	r.told()
	if n := len(r.report.Failures); n >= r.p.MaxFailures {
		return r.ended(ctx, err, &end{StoppedFailures, fmt.Errorf("%w: %d, the last is %.64q: %w", ErrFailures, n, item.ID, err)})
	}
	return r.ended(ctx, err, nil)
}

// ended returns the end of the context or of the token if that is what err comes from,
// and otherwise e.
func (r *run) ended(ctx context.Context, err error, e *end) *end {
	if cause := context.Cause(ctx); cause != nil {
		return &end{StoppedContext, cause}
	}
	if errors.Is(err, fence.ErrFenced) {
		return &end{StoppedFenced, err}
	}
	return e
}

// call calls the source.
func (r *run) call(ctx context.Context, f func(ctx context.Context) error) error {
	r.waited = ""
	return r.bounded(ctx, f)
}

func (r *run) bounded(ctx context.Context, f func(ctx context.Context) error) error {
	if r.p.CallTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.p.CallTimeout)
		defer cancel()
	}
	return f(ctx)
}

// set gives an item its fate.
func (r *run) set(id string, f fate) {
	if old, ok := r.fates[id]; ok {
		r.counts[old]--
	}
	r.fates[id] = f
	r.counts[f]++
}

func (r *run) told() {
	if r.p.onStep != nil {
		r.p.onStep(r.result())
	}
}

// result is the report so far.
func (r *run) result() Report {
	out, n := r.report, r.counts
	out.Listed = len(r.fates)
	out.Deleted, out.Gone, out.Vanished, out.Failed, out.Left = n[deleted], n[gone], n[vanished], n[failed], n[left]
	out.Kept = Kept{
		Current: n[keptCurrent], Generation: n[keptGeneration], Young: n[keptYoung],
		InUse: n[keptInUse], Unlabelled: n[keptUnlabelled], Undated: n[keptUndated],
	}
	out.Failures = slices.Clone(r.report.Failures)
	out.Waits = maps.Clone(r.report.Waits)
	out.Took = time.Since(r.began)
	return out
}
