package work_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/work"
)

// run is the Run of every kind of the model.
func (w *walk) run(ctx context.Context, p *player, j *work.Job) error {
	r := &modelRun{Job: j, id: fmt.Sprintf("%016d", j.ID), by: p, orders: make(chan order, 4), deaf: (uint64(j.ID)+uint64(j.Token.Epoch))%3 == 0}
	easy := w.started(r)
	defer w.returned(r)
	if easy {
		return nil
	}
	ended := ctx.Done()
	if r.deaf {
		ended = nil
	}
	for {
		select {
		case o := <-r.orders:
			if err, returns := o(r); returns {
				return err
			}
		case <-ended:
			return context.Cause(ctx)
		}
	}
}

// started enters a run, and refuses one beside another of the same job or key.
func (w *walk) started(r *modelRun) (easy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, other := range w.runs {
		if other.Token != r.Token {
			continue
		}
		if other.id == r.id || modelKinds[r.Kind] != work.Any && other.Kind == r.Kind && other.Key == r.Key {
			w.faults = append(w.faults, fmt.Sprintf("job %s of %s %q runs beside job %s under %v", r.id, r.Kind, r.Key, other.id, r.Token))
		}
	}
	w.runs = append(w.runs, r)
	w.newest[r.id] = r
	key := startKey{r.id, r.Token}
	w.starts[key]++
	w.fresh = append(w.fresh, start{key, w.starts[key]})
	return w.easy
}

func (w *walk) returned(r *modelRun) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs = slices.DeleteFunc(w.runs, func(other *modelRun) bool { return other == r })
	if len(w.stale) < 32 {
		w.stale = append(w.stale, r)
	} else {
		w.stale[int(r.ID)%len(w.stale)] = r
	}
}

// tell has a run do something, unless it has enough to do.
func (r *modelRun) tell(o order) {
	select {
	case r.orders <- o:
	default:
	}
}

// order has some run do something, or tries to complete a job by a run that has
// returned.
func (w *walk) order() {
	w.mu.Lock()
	runs, stale := slices.Clone(w.runs), slices.Clone(w.stale)
	w.mu.Unlock()
	if len(stale) > 0 && w.random.IntN(8) == 0 {
		w.completeLate(stale[w.random.IntN(len(stale))])
		return
	}
	if len(runs) == 0 {
		return
	}
	r := runs[w.random.IntN(len(runs))]
	end := func(err error) order { return func(*modelRun) (error, bool) { return err, true } }
	switch w.random.IntN(16) {
	case 0, 1, 2:
		r.tell(w.complete)
	case 3, 4:
		r.tell(w.complete)
		r.tell(end(nil))
	case 5, 6, 7:
		r.tell(end(nil))
	case 8, 9:
		r.tell(end(errAway))
	case 10:
		r.tell(end(work.Permanent(errAway)))
	case 11:
		r.tell(func(*modelRun) (error, bool) { panic("a run panics") })
	case 12:
		r.tell(func(*modelRun) (error, bool) { runtime.Goexit(); return nil, true })
	case 13:
		w.completeLate(r)
	default:
		r.tell(w.progress)
	}
}

// complete completes a run's job together with an effect, through its own process.
func (w *walk) complete(r *modelRun) (error, bool) {
	err := w.completeBy(r, r.by)
	return err, err != nil && !errors.Is(err, work.ErrNotMine)
}

func (w *walk) completeBy(r *modelRun, p *player) error {
	err := p.update(w, func(tx *catalog.Tx) error {
		e, _, err := effects.Get(tx, r.id)
		if err != nil {
			return err
		}
		if err := effects.Set(tx, r.id, effect{Times: e.Times + 1, Token: r.Token}); err != nil {
			return err
		}
		return r.Complete(tx)
	})
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.acked = append(w.acked, r)
	}
	return err
}

// completeLate tries to complete a job by a run that may be over, through whichever
// process, in which the ledger finds it if that lands.
func (w *walk) completeLate(r *modelRun) {
	p := w.processes[w.random.IntN(len(w.processes))]
	err := w.completeBy(r, p)
	if p.c.Token() != r.Token {
		require.Error(w, err, "a completion of %v passed under %v", r.Token, p.c.Token())
	}
}

func (w *walk) progress(r *modelRun) (error, bool) {
	_ = r.by.update(w, func(tx *catalog.Tx) error { return r.SetProgress(tx, []byte(r.Token.String())) })
	return nil, false
}

// update commits, or fails within a while.
func (p *player) update(w *walk, fn func(tx *catalog.Tx) error) error {
	ctx, cancel := context.WithTimeout(w.Context(), w.scale(time.Second))
	defer cancel()
	return p.c.Update(ctx, fn)
}

// enqueue enqueues some jobs, if there are few.
func (w *walk) enqueue(p *player) {
	if len(w.ledger.jobs) > 24 {
		return
	}
	all := make([]work.Request, 1+w.random.IntN(3))
	kinds := slices.Sorted(maps.Keys(modelKinds))
	for i := range all {
		all[i] = work.Request{Kind: kinds[w.random.IntN(len(kinds))], Key: fmt.Sprint(w.random.IntN(3)), Priority: w.random.IntN(3)}
		switch w.random.IntN(12) {
		case 0:
			all[i].Generation = w.top + generation.Generation(w.random.IntN(2))
		case 1:
			all[i].Member = []string{"m1", "m2"}[w.random.IntN(2)]
		case 2, 3:
			all[i].RunAt = time.Now().Add(w.scale(time.Duration(w.random.IntN(2000)) * time.Millisecond))
		}
	}
	_ = p.update(w, func(tx *catalog.Tx) error { _, err := work.EnqueueAll(tx, all...); return err })
}

// decide does what a person may decide about a job, beside the next steps if its commit
// takes long.
func (w *walk) decide(p *player) {
	live, dead := slices.Sorted(maps.Keys(w.ledger.jobs)), slices.Sorted(maps.Keys(w.ledger.dead))
	pick := func(from []string) work.ID {
		id, err := work.ParseID(strings.TrimLeft(from[w.random.IntN(len(from))], "0"))
		require.NoError(w, err)
		return id
	}
	var change func(tx *catalog.Tx) error
	switch n := w.random.IntN(6); {
	case n < 2 && len(live) > 0:
		id := pick(live)
		change = func(tx *catalog.Tx) error { return work.Abandon(tx, id, "the walk abandons it") }
	case n < 4 && len(dead) > 0:
		id := pick(dead)
		change = func(tx *catalog.Tx) error { return work.Retry(tx, id) }
	case n == 4 && len(dead) > 0:
		id := pick(dead)
		change = func(tx *catalog.Tx) error { return work.Clear(tx, id) }
	case len(live) > 0:
		id := pick(live)
		change = func(tx *catalog.Tx) error { return work.Retry(tx, id) }
	default:
		return
	}
	go func() { _ = p.update(w, change) }()
}

// check has the ledger judge what was committed, and compares what this process saw
// of it.
func (w *walk) check() {
	w.mu.Lock()
	acked, fresh := w.acked, w.fresh
	w.acked, w.fresh = nil, nil
	require.Empty(w, w.faults)
	w.mu.Unlock()
	require.NoError(w, catalog.ReadLog(w.Context(), w.log, w.ledger.revision, w.ledger.apply))
	for _, r := range acked {
		require.Same(w, w.newestRun(r.id), r, "job %s was completed by a run before its newest", r.id)
		require.Equal(w, r.Token, w.ledger.done[r.id].Claim, "the completion of job %s was acknowledged", r.id)
		require.Equal(w, effect{1, r.Token}, w.ledger.effects[r.id], "of job %s", r.id)
	}
	for _, s := range fresh {
		require.LessOrEqual(w, s.nth, w.ledger.claimed[s.key], "runs of job %s under %v, and its claims", s.key.id, s.key.token)
	}
}

func (w *walk) newestRun(id string) *modelRun {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.newest[id]
}

// readStatus looks whether what the newest process sees adds up.
func (w *walk) readStatus() {
	p := w.processes[len(w.processes)-1]
	err := p.c.View(func(r *catalog.Reader) error {
		claim := p.c.Claim()
		st, err := work.Read(r, driver.Head{Claim: claim}, time.Now())
		require.NoError(w, err)
		sum := 0
		for _, n := range st.States {
			sum += n
		}
		require.Equal(w, [3]int{st.Live, st.Live, st.Dead}, [3]int{sum, int(st.Totals.Live()), int(st.Totals.Dead())})
		for _, k := range st.Kinds {
			sum = 0
			for _, n := range k.States {
				sum += n
			}
			require.Equal(w, [2]int{int(k.Totals.Live()), int(k.Totals.Dead())}, [2]int{sum, k.Dead}, k.Name)
		}
		return nil
	})
	if err != nil { // its handle has ended
		require.ErrorAs(w, err, new(*fence.Error))
	}
}

// calm ends every fault and every run. Then no job is left that nothing ever runs.
func (w *walk) calm() {
	w.setEasy(true)
	for _, p := range w.processes {
		p.store.lose()
		p.store.disconnect(false)
		p.store.release()
	}
	w.release(func(*modelRun) bool { return true })
	w.settle()
	w.top += 1 + w.top%2 // an odd one knows every kind
	w.begin(w.top)
	p := w.processes[len(w.processes)-1]
	for g := range w.top {
		w.reassign(p, work.Owner{Generation: g})
	}
	w.reassign(p, work.Owner{Member: "m1"})
	w.reassign(p, work.Owner{Member: "m2"})
	for range 400 {
		w.release(func(*modelRun) bool { return true })
		w.pass(500 * time.Millisecond)
		if w.check(); len(w.ledger.jobs) == 0 {
			break
		}
	}
	if len(w.ledger.jobs) > 0 {
		st, err := p.q.Status(w.Context())
		require.NoError(w, err)
		require.Empty(w, w.ledger.jobs, "%+v %v", st.States, w.ledger.runs)
	}
	w.setEasy(false)
}

func (w *walk) reassign(p *player, from work.Owner) {
	if from == (work.Owner{}) {
		return
	}
	require.NoError(w, p.c.Update(w.Context(), func(tx *catalog.Tx) error { _, err := work.Reassign(tx, from); return err }))
}

func (w *walk) setEasy(easy bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.easy = easy
}
