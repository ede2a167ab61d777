package work_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/leader"
	"github.com/fencepost/fencepost/work"
)

// A guided process leads, and works while it does.
type guided struct {
	lead *leader.Leader
	c    atomic.Pointer[catalog.Catalog]
	done chan error
}

func (l *lab) serve(ctx context.Context, store driver.Store, kinds ...work.Kind) *guided {
	l.Helper()
	lead, err := leader.New(store, leader.Config{Catalog: catalog.Config{Generation: 1}, Clock: leader.Monotonic})
	require.NoError(l, err)
	s := &guided{lead: lead, done: make(chan error, 1)}
	go func() {
		s.done <- lead.Run(ctx, func(ctx context.Context, term *leader.Term) error {
			s.c.Store(term.Catalog)
			q, err := work.New(term.Catalog, work.Config{Kinds: kinds})
			if err != nil {
				return err
			}
			return q.Run(ctx)
		})
	}()
	synctest.Wait()
	return s
}

func TestAHolderThatIsCutOffStopsItsRunsAndGoesOnWithThemOnContact(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		ctx, stop := context.WithCancel(l.Context())
		defer stop()
		store := l.store.Open()
		p := l.serve(ctx, store, s.kind("sync"))
		l.after(time.Second)
		c := p.c.Load()
		require.NoError(l, c.Update(l.Context(), func(tx *catalog.Tx) error { _, err := work.Enqueue(tx, "sync", "", []byte("a")); return err }))
		l.settle()
		store.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
		l.after(30 * time.Second)
		require.ErrorIs(l, s.cause(1), leader.ErrUnconfirmed)
		store.Inject(nil)
		l.after(30 * time.Second)
		require.Equal(l, c.Token(), p.c.Load().Token())
		require.Equal(l, []string{"a", "a"}, s.ran(), "under the token that it never lost")
		require.Equal(l, 1, s.last(1).Attempt)
		stop()
		require.NoError(l, <-p.done)
	})
}

func TestAProcessWhoseRunsIgnoreTheirContextEndsInPlaceOfRunningThemTwice(t *testing.T) {
	inLab(t, func(l *lab) {
		release, runs := make(chan struct{}), 0
		store := l.store.Open()
		p := l.serve(l.Context(), store, work.Kind{Name: "sync", Run: func(context.Context, *work.Job) error {
			runs++
			<-release
			return nil
		}})
		l.after(time.Second)
		require.NoError(l, p.c.Load().Update(l.Context(), func(tx *catalog.Tx) error { _, err := work.Enqueue(tx, "sync", "", nil); return err }))
		l.settle()
		store.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
		l.after(10 * time.Second)
		store.Inject(nil) // the token was not lost
		l.after(time.Minute)
		err := <-p.done
		require.ErrorIs(l, err, work.ErrStillRunning)
		require.Equal(l, exitcodes.Halt, exitcodes.Of(err))
		require.Equal(l, 1, runs)
		close(release)
	})
}
