package work_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
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

// A service is a random life of processes that share one catalog. Its runs end when
// and how the test says.
type service struct {
	t     *testing.T
	rand  *rand.Rand
	store *memory.Store
	gen   generation.Generation

	c    *catalog.Catalog
	q    *work.Queue
	stop context.CancelFunc
	ran  chan error

	mu      sync.Mutex
	waiting map[*work.Job]chan func(*work.Job) error
	made    work.ID
	posted  int
	looks   int
}

// act is a run: it does what the test says, or ends with its context.
func (s *service) act(ctx context.Context, j *work.Job) error {
	do := make(chan func(*work.Job) error)
	s.mu.Lock()
	s.waiting[j] = do
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting, j)
	}()
	select {
	case fn := <-do:
		return fn(j)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *service) kinds() []work.Kind {
	var all []work.Kind
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if s.rand.IntN(8) == 0 {
			continue // this release does not know it
		}
		all = append(all, work.Kind{
			Name: name, Run: s.act, Order: work.Order(s.rand.IntN(3)), Pin: work.Pin(s.rand.IntN(4) / 3),
			Stranded: work.Stranding(s.rand.IntN(2)), MaxAttempts: 1 + s.rand.IntN(4), Concurrency: 1 + s.rand.IntN(4),
			Retry: func(n int) time.Duration { return time.Duration(n) * time.Second }, MaxQueued: 60,
		})
	}
	return all
}

// begin has a new process claim, over the one before, and run a Queue.
func (s *service) begin() {
	c, err := catalog.Open(s.t.Context(), s.store, catalog.Config{Generation: s.gen, Holder: fence.Holder{Name: fmt.Sprintf("m%d", s.rand.IntN(3))}})
	require.NoError(s.t, err)
	old := s.c
	if old != nil {
		synctest.Wait()
		require.Error(s.t, <-s.ran)
		_ = old.Close()
	}
	s.c = c
	s.run()
}

func (s *service) run() {
	q, err := work.New(s.c, work.Config{Kinds: s.kinds(), Concurrency: 1 + s.rand.IntN(8), Poll: time.Second})
	require.NoError(s.t, err)
	ctx, stop := context.WithCancel(s.t.Context())
	s.q, s.stop, s.ran = q, stop, make(chan error, 1)
	go func(ran chan error) { ran <- q.Run(ctx) }(s.ran)
}

// step does one random thing, and returns what.
func (s *service) step() string {
	switch n := s.rand.IntN(100); {
	case n < 35:
		return s.enqueue()
	case n < 65:
		return s.finish()
	case n < 75:
		d := time.Duration(s.rand.IntN(3000)) * time.Millisecond
		<-time.After(d)
		return "sleep"
	case n < 79:
		s.begin()
		return "crash"
	case n < 83:
		s.gen++
		s.begin()
		return "deploy"
	case n < 86:
		s.stop()
		require.Error(s.t, <-s.ran)
		s.run()
		return "another Queue"
	case n < 96:
		return s.administer()
	default:
		return s.post()
	}
}

func (s *service) enqueue() string {
	var batch []work.Request
	for range 1 + s.rand.IntN(3) {
		r := work.Request{Kind: string("abcdexy"[s.rand.IntN(7)]), Key: string("kl"[s.rand.IntN(2)]), Priority: s.rand.IntN(3) - 1}
		switch s.rand.IntN(8) {
		case 0:
			r.RunAt = time.Now().Add(time.Duration(s.rand.IntN(5000)) * time.Millisecond)
		case 1:
			r.Member = fmt.Sprintf("m%d", s.rand.IntN(4))
		case 2:
			r.Generation = s.gen + generation.Generation(s.rand.IntN(2))
		}
		batch = append(batch, r)
	}
	err := s.c.Update(s.t.Context(), func(tx *catalog.Tx) error {
		first, err := work.EnqueueAll(tx, batch...)
		if err == nil {
			s.made = first + work.ID(len(batch)) - 1
		}
		return err
	})
	if !errors.Is(err, work.ErrFull) {
		require.NoError(s.t, err)
	}
	return "enqueue"
}

// finish ends some runs, each in a way of its own.
func (s *service) finish() string {
	s.mu.Lock()
	all := slices.SortedFunc(maps.Keys(s.waiting), func(x, y *work.Job) int { return int(x.ID) - int(y.ID) })
	if len(all) == 0 {
		s.mu.Unlock()
		return "finish none"
	}
	j := all[s.rand.IntN(len(all))]
	do := s.waiting[j]
	s.mu.Unlock()
	update := func(j *work.Job) error {
		return s.c.Update(s.t.Context(), func(tx *catalog.Tx) error { return j.Complete(tx) })
	}
	ends := []func(*work.Job) error{
		func(*work.Job) error { return nil },
		func(*work.Job) error { return nil },
		func(*work.Job) error { return errors.New("failed") },
		func(*work.Job) error { return work.Permanent(errors.New("refused")) },
		func(*work.Job) error { panic("panicked") },
		func(*work.Job) error { return work.Later(time.Second) },
		update,
		func(j *work.Job) error { return errors.Join(update(j), errors.New("failed afterwards")) },
		func(j *work.Job) error {
			return s.c.Update(s.t.Context(), func(tx *catalog.Tx) error { return errors.Join(j.Complete(tx), errors.New("rolled back")) })
		},
	}
	do <- ends[s.rand.IntN(len(ends))]
	return "finish"
}

func (s *service) id() work.ID {
	return work.ID(1 + s.rand.Int64N(int64(s.made)+2))
}

// administer does what a person may, also to jobs that are not there.
func (s *service) administer() string {
	id, what := s.id(), ""
	err := s.c.Update(s.t.Context(), func(tx *catalog.Tx) (err error) {
		for range 1 + s.rand.IntN(3) {
			switch s.rand.IntN(5) {
			case 0, 1:
				what, err = "abandon", work.Abandon(tx, id, "not wanted")
			case 2:
				what, err = "retry", work.Retry(tx, id)
			case 3:
				what, err = "clear", work.Clear(tx, id)
			default:
				from := work.Owner{Generation: generation.Generation(1 + s.rand.IntN(int(s.gen)))}
				if s.rand.IntN(2) == 0 {
					from = work.Owner{Member: fmt.Sprintf("m%d", s.rand.IntN(4))}
				}
				what = "reassign"
				_, err = work.Reassign(tx, from)
			}
			id = s.id()
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, work.ErrNotFound) && !errors.Is(err, work.ErrNotDead) && !errors.Is(err, work.ErrInvalid) {
		require.NoError(s.t, err)
	}
	return what
}

// post puts requests into the inbox, some of which can't be done.
func (s *service) post() string {
	notes := []work.Note{
		{Op: work.OpEnqueue, Kind: "a", Key: "k"}, {Op: work.OpEnqueue, Kind: "x", Member: "m1"}, {Op: "nonsense"}, {Op: work.OpActivate},
		{Op: work.OpAbandon, ID: s.id(), Reason: "posted"}, {Op: work.OpRetry, ID: s.id()}, {Op: work.OpClear, ID: s.id()},
		{Op: work.OpReassign, Member: "m3"},
	}
	s.posted++
	n := notes[s.rand.IntN(len(notes))]
	require.NoError(s.t, work.Post(s.t.Context(), s.c.Board(), fmt.Sprintf("%06d", s.posted), n))
	<-time.After(2 * time.Second)
	return "post " + n.Op
}

// look reads the status in every way there is, and checks each.
func (s *service) look(after string) {
	s.t.Helper()
	synctest.Wait()
	_, err := s.q.Pass(s.t.Context())
	require.NoError(s.t, err, after)
	synctest.Wait()
	_, err = s.q.Pass(s.t.Context())
	require.NoError(s.t, err, after)
	synctest.Wait()
	mine, err := s.q.Status(s.t.Context())
	require.NoError(s.t, err, after)
	require.NoError(s.t, mine.Sums(), after)
	require.Equal(s.t, mine.States[work.Running], mine.Pass.Held(), after)
	require.Equal(s.t, mine.States[work.Unknown], mine.Pass.Unknown, after)
	require.Equal(s.t, mine.States[work.Stranded], mine.Pass.Stranded, after)
	require.LessOrEqual(s.t, mine.Pass.Waiting, mine.States[work.Waiting]+mine.States[work.Orphan], after)
	require.GreaterOrEqual(s.t, mine.Pass.Waiting, 0, after)
	s.mu.Lock()
	require.Len(s.t, s.waiting, mine.States[work.Running]+mine.Pass.Leaving, after)
	s.mu.Unlock()

	mine.Pass = nil
	require.NoError(s.t, s.c.View(func(r *catalog.Reader) error {
		s.compare(r, s.c.Head(), mine, after)
		return nil
	}), after)
	if s.looks++; s.looks%25 == 0 {
		require.NoError(s.t, catalog.Snapshot(s.t.Context(), s.store, catalog.Config{}, func(head driver.Head, r *catalog.Reader) error {
			s.compare(r, head, mine, after)
			return nil
		}), after)
	}
}

// compare reads the status from outside of the Queue.
func (s *service) compare(r *catalog.Reader, head driver.Head, mine work.Status, after string) {
	s.t.Helper()
	theirs, err := work.Read(r, head, mine.At)
	require.NoError(s.t, err, after)
	require.NoError(s.t, theirs.Sums(), after)
	if !reflect.DeepEqual(mine, theirs) { // require.Equal alone would format both, each time
		require.Equal(s.t, mine, theirs, after)
	}
}

func TestTheSumsOfTheStatusAddUpAfterEveryStep(t *testing.T) {
	t.Parallel()
	lives, steps := 3, 70
	if os.Getenv(drivertest.WholeVar) != "" {
		lives, steps = 60, 400
	}
	for life := range lives {
		t.Run(fmt.Sprint(life), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &service{t: t, rand: rand.New(rand.NewPCG(uint64(life), 12)), store: memory.New(), gen: 1, waiting: map[*work.Job]chan func(*work.Job) error{}}
				s.begin()
				defer func() {
					s.stop()
					<-s.ran
					_ = s.c.Close()
				}()
				for i := range steps {
					s.look(fmt.Sprintf("step %d: %s", i, s.step()))
				}
			})
		})
	}
}
