package work_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/work"
)

// A lab is one catalog in memory and the processes that work on it, in a bubble.
type lab struct {
	*testing.T
	store *memory.Store
}

// inLab calls fn in a bubble of its own.
func inLab(t *testing.T, fn func(l *lab)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { fn(&lab{t, memory.New()}) })
}

// A process holds the token and runs a Queue. What was superseded lives on as a
// zombie.
type process struct {
	*lab
	store *memory.Store
	c     *catalog.Catalog
	q     *work.Queue
	stop  context.CancelCauseFunc
	done  chan error
}

var errStopped = errors.New("the test stops the queue")

// open claims for a generation, and runs kinds.
func (l *lab) open(g generation.Generation, kinds ...work.Kind) *process {
	l.Helper()
	return l.openWith(g, work.Config{Kinds: kinds})
}

func (l *lab) openWith(g generation.Generation, cfg work.Config) *process {
	l.Helper()
	store := l.store.Open()
	c, err := catalog.Open(l.Context(), store, catalog.Config{Generation: g})
	require.NoError(l, err)
	p := &process{lab: l, store: store, c: c}
	l.Cleanup(func() { p.quit(); _ = c.Close() })
	p.work(cfg)
	return p
}

// work runs one more Queue on the handle.
func (p *process) work(cfg work.Config) {
	p.Helper()
	var err error
	p.q, err = work.New(p.c, cfg)
	require.NoError(p, err)
	ctx, stop := context.WithCancelCause(p.Context())
	p.stop, p.done = stop, make(chan error, 1)
	go func() { p.done <- p.q.Run(ctx) }()
	p.settle()
}

// quit stops the Queue and returns what Run returned.
func (p *process) quit() error {
	p.stop(errStopped)
	err := <-p.done
	p.done <- err
	return err
}

// hold has commits land whose answer is lost, and nothing be read, until let.
func (p *process) hold() {
	p.store.Inject(func(c memory.Call) memory.Fault {
		switch c.Method {
		case "Append":
			return memory.LoseAnswer
		case "Head":
			return memory.Refuse
		default:
			return memory.Pass
		}
	})
}

func (p *process) let() { p.store.Inject(nil) }

// settle waits until nothing happens but with the time.
func (l *lab) settle() { synctest.Wait() }

// after lets time pass.
func (l *lab) after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// update commits a change.
func (p *process) update(fn func(tx *catalog.Tx) error) {
	p.Helper()
	require.NoError(p, p.c.Update(p.Context(), fn))
	p.settle()
}

// enqueue enqueues a job and lets it start.
func (p *process) enqueue(kind, key, payload string) (id work.ID) {
	p.Helper()
	p.update(func(tx *catalog.Tx) (err error) {
		id, err = work.Enqueue(tx, kind, key, []byte(payload))
		return err
	})
	return id
}

func (p *process) enqueueAll(requests ...work.Request) (first work.ID) {
	p.Helper()
	p.update(func(tx *catalog.Tx) (err error) { first, err = work.EnqueueAll(tx, requests...); return err })
	return first
}

func (p *process) status() work.Status {
	p.Helper()
	st, err := p.q.Status(p.Context())
	require.NoError(p, err)
	return st
}

// states returns the states that some job is in.
func (p *process) states() map[work.State]int {
	p.Helper()
	states := p.status().States
	maps.DeleteFunc(states, func(_ work.State, n int) bool { return n == 0 })
	return states
}

// job returns a job as the holder sees it.
func (p *process) job(id work.ID) (info work.Info) {
	p.Helper()
	found := false
	require.NoError(p, p.c.View(func(r *catalog.Reader) (err error) {
		info, found, err = work.Find(r, p.head(), id, time.Now())
		return err
	}))
	require.True(p, found, "job %d", id)
	return info
}

func (p *process) head() driver.Head { return p.c.Head() }

// A stage runs jobs as a test tells it.
type stage struct {
	mu   sync.Mutex
	runs []*work.Job
	ends map[work.ID]chan error
	seen map[work.ID]error // the causes with which runs were interrupted
}

func newStage() *stage { return &stage{ends: map[work.ID]chan error{}, seen: map[work.ID]error{}} }

// kind waits for the test to end each run, or for its context.
func (s *stage) kind(name string) work.Kind {
	return work.Kind{Name: name, Run: func(ctx context.Context, j *work.Job) error {
		select {
		case err := <-s.begin(j):
			return err
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			s.seen[j.ID] = context.Cause(ctx)
			return ctx.Err()
		}
	}}
}

func (s *stage) begin(j *work.Job) chan error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = append(s.runs, j)
	s.ends[j.ID] = make(chan error, 1)
	return s.ends[j.ID]
}

// end ends the newest run of a job.
func (s *stage) end(id work.ID, err error) {
	s.mu.Lock()
	s.ends[id] <- err
	s.mu.Unlock()
	synctest.Wait()
}

// ran returns the payloads of the runs so far.
func (s *stage) ran() (payloads []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.runs {
		payloads = append(payloads, string(j.Payload))
	}
	return payloads
}

// last returns the newest run of a job.
func (s *stage) last(id work.ID) *work.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range slices.Backward(s.runs) {
		if j.ID == id {
			return j
		}
	}
	return nil
}

func (s *stage) cause(id work.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[id]
}

// instantly is a kind whose runs return what fn does, which is called by one at a
// time.
func instantly(name string, fn func(j *work.Job) error) work.Kind {
	var mu sync.Mutex
	return work.Kind{Name: name, Run: func(_ context.Context, j *work.Job) error {
		mu.Lock()
		defer mu.Unlock()
		return fn(j)
	}}
}

func succeed(*work.Job) error { return nil }

var errAway = errors.New("the index is away")

func requests(kind string, n int) (all []work.Request) {
	for i := range n {
		all = append(all, work.Request{Kind: kind, Key: fmt.Sprint(i), Payload: []byte(fmt.Sprint(i))})
	}
	return all
}
