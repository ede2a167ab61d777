package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
)

// gated is a store whose reads of the head wait at a gate, before the store is
// read or behind it, while there is one. It wakes nobody.
type gated struct {
	driver.Store
	before, behind atomic.Pointer[chan struct{}]
	asked          atomic.Int64
}

func (g *gated) Head(ctx context.Context) (driver.Head, error) {
	g.asked.Add(1)
	pass(g.before.Load())
	head, err := g.Store.Head(ctx)
	pass(g.behind.Load())
	return head, err
}

func pass(gate *chan struct{}) {
	if gate != nil {
		<-*gate
	}
}

// closed puts a gate where it is told to, and returns what opens it for good.
func closed(where *atomic.Pointer[chan struct{}]) (open func()) {
	gate := make(chan struct{})
	where.Store(&gate)
	return func() { where.Store(nil); close(gate) }
}

// patient is the configuration of a holder that does not look by itself.
func patient() catalog.Config {
	return catalog.Config{Generation: 1, PollInterval: time.Hour, StoreTimeout: 2 * time.Hour}
}

// gatedHolder returns a holder over a gated store, whose first look is over.
func gatedHolder(t *testing.T, store *memory.Store, cfg catalog.Config) (*catalog.Catalog, *gated) {
	g := &gated{Store: store.Open()}
	c, err := catalog.Open(t.Context(), g, cfg)
	require.NoError(t, err)
	synctest.Wait()
	return c, g
}

func async(fn func() error) <-chan error {
	fate := make(chan error, 1)
	go func() { fate <- fn() }()
	return fate
}

// callers are contexts of one who can leave, and of one who can't: they take
// different ways through Confirm.
func callers(t *testing.T) []context.Context {
	return []context.Context{t.Context(), context.Background()}
}

func TestAConfirmNeverJoinsAQuestionThatWasSentBeforeItBegan(t *testing.T) {
	for i := range 4 {
		synctest.Test(t, func(t *testing.T) {
			store := memory.New()
			c, g := gatedHolder(t, store, patient())
			open := closed(&g.behind)
			early := async(func() error { return c.Confirm(callers(t)[i/2]) })
			synctest.Wait() // the store has answered it, and nobody knows yet
			next, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 2})
			require.NoError(t, err)
			g.behind.Store(nil)
			late := async(func() error { return c.Confirm(callers(t)[i%2]) })
			synctest.Wait()
			ended := c.Err() != nil // which is so where a caller asks on its own goroutine
			open()
			require.ErrorIs(t, <-late, fence.ErrSuperseded, "its answer is from before the claim")
			if err := <-early; ended || err != nil {
				require.ErrorIs(t, err, fence.ErrSuperseded, "the handle had ended when it was answered")
			}
			require.ErrorIs(t, c.Close(), fence.ErrSuperseded)
			require.NoError(t, next.Close())
		})
	}
}

// A caller that can't leave asks on its own goroutine, beside which one question
// more may be under way.
func TestConfirmsThatWaitShareOneQuestion(t *testing.T) {
	for _, leaves := range [][]bool{{true}, {false, true}} { // the first callers
		synctest.Test(t, func(t *testing.T) {
			c, g := gatedHolder(t, memory.New(), patient())
			for range 3 { // also once the one before was answered
				before := g.asked.Load()
				open := closed(&g.before)
				var fates []<-chan error
				for _, may := range leaves {
					ctx := callers(t)[0]
					if !may {
						ctx = callers(t)[1]
					}
					fates = append(fates, async(func() error { return c.Confirm(ctx) }))
					synctest.Wait()
				}
				for n := range 8 {
					fates = append(fates, async(func() error { return c.Confirm(callers(t)[n%2]) }))
				}
				synctest.Wait()
				sent := before + int64(len(leaves))
				require.Equal(t, sent, g.asked.Load(), "questions before the first was answered")
				open()
				for _, fate := range fates {
					require.NoError(t, <-fate)
				}
				require.Equal(t, sent+1, g.asked.Load(), "questions")
			}
			require.NoError(t, c.Close())
		})
	}
}

func TestACallerOfConfirmLeavesWhenItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, g := gatedHolder(t, memory.New(), patient())
		open := closed(&g.before)
		mine := errors.New("the caller has left")
		ctx, leave := context.WithCancelCause(t.Context())
		leaves, stays := async(func() error { return c.Confirm(ctx) }), async(func() error { return c.Confirm(t.Context()) })
		synctest.Wait()
		leave(mine)
		require.ErrorIs(t, <-leaves, mine)
		require.Empty(t, stays)
		open()
		require.NoError(t, <-stays)
		require.NoError(t, c.Close())
	})
}

// TestACommitBesideAReadOfTheHeadIsNoLoss lets commits land at each moment of a
// read: of a Confirm, and of a look of the holder's own.
func TestACommitBesideAReadOfTheHeadIsNoLoss(t *testing.T) {
	reads := map[string]func(*testing.T, *catalog.Catalog) error{
		"a Confirm": func(t *testing.T, c *catalog.Catalog) error { return c.Confirm(t.Context()) },
		"a look":    func(*testing.T, *catalog.Catalog) error { return nil }, // which comes within PollInterval
	}
	for name, read := range reads {
		for where, gate := range map[string]func(*gated) *atomic.Pointer[chan struct{}]{
			"before the store is read": func(g *gated) *atomic.Pointer[chan struct{}] { return &g.before },
			"behind that":              func(g *gated) *atomic.Pointer[chan struct{}] { return &g.behind },
		} {
			t.Run(name+", "+where, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, g := gatedHolder(t, memory.New(), patient())
					require.NoError(t, setIn(c, "before"))
					open := closed(gate(g))
					fate := async(func() error { return read(t, c) })
					<-time.After(patient().PollInterval) // by the bubble's clock
					synctest.Wait()
					for i := range 3 {
						require.NoError(t, setIn(c, fmt.Sprint(i)))
					}
					open()
					require.NoError(t, <-fate)
					synctest.Wait()
					require.NoError(t, c.Err())
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

func TestAReadOfTheHeadBesideACommitWithoutAnswerIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		landed, goOn := make(chan struct{}), make(chan struct{})
		s := &onAppend{Store: store.Open()}
		s.append = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
			err := s.Store.Append(ctx, prior, rec)
			close(landed)
			<-goOn
			return err
		}
		c, err := catalog.Open(t.Context(), s, patient())
		require.NoError(t, err)
		fate := async(func() error { return setIn(c, "k") })
		<-landed
		require.NoError(t, c.Confirm(t.Context()))
		close(goOn)
		require.NoError(t, <-fate)
		require.NoError(t, c.Close())
	})
}

func TestALookThatFindsMyClaimRolledBackIsALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		c, _ := gatedHolder(t, store, patient())
		require.NoError(t, setIn(c, "kept"))
		kept := c.Head().Revision
		require.NoError(t, setIn(c, "gone"))
		store.Rollback(kept)
		<-c.Done()
		require.ErrorIs(t, c.Close(), catalog.ErrLostCommit)
	})
}

func TestAConfirmIsTriedAgainWhileTheStoreFailsInPassing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memory.New()
		c, err := catalog.Open(t.Context(), h, patient())
		require.NoError(t, err)
		synctest.Wait()
		failures := 0
		h.Inject(func(call memory.Call) memory.Fault {
			if call.Method != "Head" || failures == 3 {
				return memory.Pass
			}
			failures++
			return memory.Refuse
		})
		require.NoError(t, c.Confirm(t.Context()))
		require.Equal(t, 3, failures)
		require.NoError(t, c.Close())
	})
}
