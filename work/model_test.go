package work_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/work"
)

const (
	lifeSteps = 1000 // of one catalog
	someLives = 2
	allLives  = 1000 // with FENCEPOST_WHOLE
)

// TestNoOlderTokenCompletesAJobAndNoJobIsLostOrDoneTwice plays random steps of
// processes that work on one catalog: holders, zombies, and those that die. Commits
// are lost, delayed and repeated. A ledger judges every commit.
func TestNoOlderTokenCompletesAJobAndNoJobIsLostOrDoneTwice(t *testing.T) {
	t.Parallel()
	lives := someLives
	if os.Getenv(drivertest.WholeVar) != "" {
		lives = allLives
	}
	for seed := range uint64(lives) {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			w := newWalk(t, seed, func() driver.Store { return store.Open() }, inBubble{})
			w.walk(lifeSteps)
		})
		if t.Failed() {
			return
		}
	}
}

// A clock waits for what a step has caused.
type clock interface {
	settle()
	scale(d time.Duration) time.Duration
}

type inBubble struct{}

func (inBubble) settle()                             { synctest.Wait() }
func (inBubble) scale(d time.Duration) time.Duration { return d }

// pass lets time pass.
func (w *walk) pass(d time.Duration) {
	<-time.After(w.scale(d))
	w.settle()
}

// A walk plays random steps on one catalog.
type walk struct {
	*testing.T
	clock
	random *rand.Rand
	open   func() driver.Store
	log    driver.Store // for the ledger
	ledger *ledger

	top       generation.Generation
	processes []*player // the newest is the last

	mu     sync.Mutex
	runs   []*modelRun // that have not returned
	stale  []*modelRun // some of those that have
	starts map[startKey]int
	newest map[string]*modelRun // by job
	fresh  []start              // since the last check
	acked  []*modelRun          // whose Complete was acknowledged, since the last check
	faults []string
	easy   bool // runs return nil at once
}

// A player is a process.
type player struct {
	store *lossyStore
	c     *catalog.Catalog
	q     *work.Queue
	stop  context.CancelCauseFunc
	done  chan error
}

// A modelRun is one run of a job, which does what the walk asks.
type modelRun struct {
	*work.Job
	id     string
	by     *player
	orders chan order
	deaf   bool // it goes on behind the end of its context
}

// A start is the nth one of a job under a token.
type start struct {
	key startKey
	nth int
}

type order func(*modelRun) (err error, returns bool)

// modelKinds are the kinds, of which a generation may lack "some".
var modelKinds = map[string]work.Order{"any": work.Any, "each": work.Each, "latest": work.Latest, "some": work.Any}

func newWalk(t *testing.T, seed uint64, open func() driver.Store, c clock) *walk {
	w := &walk{
		T: t, clock: c, random: rand.New(rand.NewPCG(seed, 0)), open: open, log: open(), ledger: newLedger(t, modelKinds),
		starts: map[startKey]int{}, newest: map[string]*modelRun{}, top: 1,
	}
	t.Cleanup(func() {
		w.endAll()
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return w
}

// walk plays steps, and at times ends every fault and run and looks whether all jobs
// come to their end.
func (w *walk) walk(steps int) {
	w.begin(w.top)
	for n := range steps {
		w.step()
		w.settle()
		w.check()
		if n%20 == 19 {
			w.readStatus()
		}
		if n%200 == 199 {
			w.calm()
		}
	}
	w.calm()
}

func (w *walk) endAll() {
	for _, p := range slices.Clone(w.processes) {
		w.end(p)
	}
	_ = w.log.Close()
}

// step plays one step.
func (w *walk) step() {
	holder := w.processes[len(w.processes)-1]
	switch n := w.random.IntN(100); {
	case n < 22:
		w.enqueue(holder)
	case n < 60:
		w.order()
	case n < 64:
		w.begin(w.top)
	case n < 67:
		w.top++
		w.begin(w.top)
	case n < 68:
		w.beginBelow()
	case n < 70:
		w.restart(holder)
	case n < 76:
		w.fault()
	case n < 80:
		w.heal()
	case n < 84:
		w.decide(holder)
	case n < 86:
		w.force(holder)
	default:
		w.pass(time.Duration(w.random.IntN(400)) * time.Millisecond)
	}
}

// force makes a pass, if the process still works.
func (w *walk) force(p *player) {
	ctx, cancel := context.WithTimeout(w.Context(), w.scale(time.Second))
	defer cancel()
	_, _ = p.q.Pass(ctx)
}

// begin opens a process of a generation, which fences the one before. That one stays
// as a zombie, most often.
func (w *walk) begin(g generation.Generation) {
	p := &player{store: &lossyStore{Store: w.open()}}
	if len(w.processes) > 0 && w.random.IntN(2) == 0 { // it does not notice for a while
		w.processes[len(w.processes)-1].store.disconnect(true)
	}
	member := []string{"m1", "m2"}[w.random.IntN(2)]
	// The ledger reads the whole log.
	c, err := catalog.Open(w.Context(), p.store, catalog.Config{Generation: g, Holder: fence.Holder{Name: member}, CompactAfter: 1 << 30})
	require.NoError(w, err)
	p.c = c
	w.work(p)
	w.processes = append(w.processes, p)
	if len(w.processes) > 4 {
		w.end(w.processes[0])
	}
}

// beginBelow has a process of a lower generation try.
func (w *walk) beginBelow() {
	if w.top == 1 {
		return
	}
	store := w.open()
	_, err := catalog.Open(w.Context(), store, catalog.Config{Generation: w.top - 1})
	require.ErrorIs(w, err, fence.ErrSuperseded)
	require.NoError(w, store.Close())
}

// work runs a Queue.
func (w *walk) work(p *player) {
	var known []work.Kind
	for _, name := range slices.Sorted(maps.Keys(modelKinds)) {
		if name == "some" && p.c.Token().Generation%2 == 0 {
			continue
		}
		k := work.Kind{Name: name, Order: modelKinds[name], MaxAttempts: 4, Retry: func(int) time.Duration { return w.scale(time.Duration(len(name)) * 100 * time.Millisecond) }}
		k.Run = func(ctx context.Context, j *work.Job) error { return w.run(ctx, p, j) }
		known = append(known, k)
	}
	q, err := work.New(p.c, work.Config{Kinds: known, Concurrency: 8, Grace: w.scale(time.Second), Poll: -1})
	require.NoError(w, err)
	ctx, stop := context.WithCancelCause(w.Context())
	done := make(chan error, 1)
	p.q, p.stop, p.done = q, stop, done
	go func() { done <- q.Run(ctx) }()
}

// end ends a process. Whatever runs in it returns, as late as that is.
func (w *walk) end(p *player) {
	w.release(func(r *modelRun) bool { return r.by == p })
	p.stop(errStopped)
	p.store.disconnect(false)
	p.store.lose()
	<-p.done
	p.store.release()
	_ = p.c.Close() // it says why it had ended
	_ = p.store.Close()
	w.processes = slices.DeleteFunc(w.processes, func(other *player) bool { return other == p })
}

// release has runs return nil.
func (w *walk) release(which func(*modelRun) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.runs {
		if which(r) {
			r.tell(func(*modelRun) (error, bool) { return nil, true })
		}
	}
}

// restart ends the Queue of a process and runs another one on its handle, which must
// be done if no run goes on.
func (w *walk) restart(p *player) {
	w.release(func(r *modelRun) bool { return r.by == p && r.deaf })
	p.stop(errStopped)
	if err := <-p.done; errors.Is(err, work.ErrStillRunning) || p.c.Err() != nil {
		p.done <- err
		w.begin(w.top)
		return
	}
	w.work(p)
}

// fault has the store of a process fail.
func (w *walk) fault() {
	p := w.processes[w.random.IntN(len(w.processes))]
	if w.random.IntN(4) == 0 {
		p.store.disconnect(true)
		return
	}
	losses := make([]loss, 1+w.random.IntN(3))
	for i := range losses {
		losses[i] = loss(w.random.IntN(4))
	}
	p.store.lose(losses...)
}

// heal ends the faults of one process, and lets its late commits come.
func (w *walk) heal() {
	p := w.processes[w.random.IntN(len(w.processes))]
	p.store.lose()
	p.store.disconnect(false)
	p.store.release()
}
