package catalog_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// errFirst is what a store says that refuses a commit.
var errFirst = errors.New("refused")

// refusesOne is a store that refuses one commit for good: the next one once it is
// told to.
type refusesOne struct {
	driver.Store
	next    bool
	appends int
}

func (s *refusesOne) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	s.appends++
	if s.next {
		s.next = false
		return &driver.Error{Store: s.String(), Op: "append", Err: errFirst}
	}
	return s.Store.Append(ctx, prior, rec)
}

// batched runs Updates in one batch: they are queued behind a function that waits.
func batched(t *testing.T, c *catalog.Catalog, begun func(), fns ...func(*catalog.Tx) error) (fates []<-chan error) {
	goOn := make(chan struct{})
	held := async(func() error { return c.Update(t.Context(), func(*catalog.Tx) error { <-goOn; return nil }) })
	synctest.Wait()
	for _, fn := range fns {
		fates = append(fates, async(func() error { return c.Update(t.Context(), fn) }))
		synctest.Wait() // so that they are queued in this order
	}
	begun()
	close(goOn)
	require.NoError(t, <-held)
	return fates
}

func fill(key string, size int) func(*catalog.Tx) error {
	return func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, key, make([]byte, size)) }
}

// Three Updates that need a commit each: the second and third were computed on
// what the first would have written.
func TestCommitsBehindOneThatWasRefusedAreNotSentAndFailWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &refusesOne{Store: memory.New()}
		c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
		require.NoError(t, err)
		before := c.Head()
		fates := batched(t, c, func() { s.next = true }, fill("a", 3<<20), fill("b", 3<<20), fill("c", 3<<20))
		for _, fate := range fates {
			err := <-fate
			require.ErrorIs(t, err, errFirst)
			require.Equal(t, driver.NotApplied, catalog.OutcomeOf(err))
			require.Equal(t, exitcodes.None, exitcodes.Of(err))
		}
		require.Equal(t, 1, s.appends, "commits that the store was asked for")
		require.Equal(t, before, c.Head())
		require.Empty(t, keys(t, c))
		require.NoError(t, c.Update(t.Context(), set("k")), "the handle goes on, on what there was before")
		require.Equal(t, []string{"k"}, keys(t, c))
		require.NoError(t, c.Close())
		again, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
		require.NoError(t, err)
		require.Equal(t, []string{"k"}, keys(t, again))
		require.NoError(t, again.Close())
	})
}

// What a function returned may rest on what had not landed when it ran.
func TestWhatAFunctionSawOfACommitThatWasRefusedIsToldToNobody(t *testing.T) {
	own := errors.New("there is one already")
	sees := func(result error) func(*catalog.Tx) error {
		return func(tx *catalog.Tx) error {
			_, there, err := catalog.Bytes("c").Get(tx, "k")
			if err != nil || !there {
				return err
			}
			return result
		}
	}
	for name, result := range map[string]error{"an error of its own": own, "no change": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &refusesOne{Store: memory.New()}
				c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
				require.NoError(t, err)
				for _, fate := range batched(t, c, func() { s.next = true }, set("k"), sees(result)) {
					require.ErrorIs(t, <-fate, errFirst)
				}
				fates := batched(t, c, func() {}, set("k"), sees(result))
				require.NoError(t, <-fates[0])
				require.Equal(t, result, <-fates[1], "once it has landed")
				require.NoError(t, c.Close())
			})
		})
	}
}

// Close finds Updates in the queue, behind one whose function is running.
func TestCloseFinishesTheUpdatesThatWereQueuedAndRefusesLaterOnes(t *testing.T) {
	for range 20 { // what is ready is chosen at random
		synctest.Test(t, func(t *testing.T) {
			c, err := catalog.Open(t.Context(), memory.New(), catalog.Config{Generation: 1})
			require.NoError(t, err)
			var end <-chan error
			closes := func() {
				end = async(c.Close)
				synctest.Wait()
				require.ErrorIs(t, c.Update(t.Context(), set("late")), catalog.ErrClosed)
			}
			fates := batched(t, c, closes, set("a"), set("b"), set("c"))
			for _, fate := range fates {
				require.NoError(t, <-fate)
			}
			require.NoError(t, <-end)
		})
	}
}

// The store takes less in one commit than Updates may share, and less than one of
// them wants.
func TestAnUpdateThatIsTooLargeFailsAloneAndTheOthersAreSharedAsTheStoreTakesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &refusesOne{Store: memory.NewWith(memory.Config{Payload: 1 << 20})}
		c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
		require.NoError(t, err)
		alone := func(tx *catalog.Tx) error {
			_, there, err := catalog.Bytes("c").Get(tx, "huge")
			if err == nil && there {
				err = errors.New("it sees what will never be written")
			}
			return errors.Join(err, set("last")(tx))
		}
		fates := batched(t, c, func() {}, fill("a", 600<<10), fill("b", 600<<10), fill("huge", 1<<20), alone)
		for i, fate := range fates {
			if err := <-fate; i == 2 {
				require.ErrorIs(t, err, driver.ErrTooLarge)
			} else {
				require.NoError(t, err, "%d", i)
			}
		}
		require.Equal(t, 2, s.appends, "commits")
		require.Equal(t, []string{"a", "b", "last"}, keys(t, c))
		require.NoError(t, c.Close())
		again, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b", "last"}, keys(t, again))
		require.NoError(t, again.Close())
	})
}

func TestCloseGivesUpWhatAStoreInTroubleDoesNotTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		h := store.Open()
		c, err := catalog.Open(t.Context(), h, catalog.Config{Generation: 1, RetryBudget: time.Hour, StoreTimeout: time.Second})
		require.NoError(t, err)
		h.Inject(func(call memory.Call) memory.Fault {
			if call.Method == "Append" {
				return memory.Refuse
			}
			return memory.Pass
		})
		fate := async(func() error { return c.Update(t.Context(), set("k")) })
		synctest.Wait()
		begun := time.Now()
		require.NoError(t, c.Close())
		require.LessOrEqual(t, time.Since(begun), 3*time.Second, "a StoreTimeout, and two for the commit that is left")
		err = <-fate
		require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
		require.Equal(t, driver.NotApplied, catalog.OutcomeOf(err))
	})
}

func TestAnUpdateUnderAContextThatHasEndedIsNotBegun(t *testing.T) {
	c := holder(t, memory.New(), catalog.Config{Generation: 1})
	mine := errors.New("the caller has left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(mine)
	for range 50 { // what is ready is chosen at random
		err := c.Update(ctx, func(*catalog.Tx) error { t.Error("it was called"); return nil })
		require.ErrorIs(t, err, mine)
		require.Equal(t, driver.NotApplied, catalog.OutcomeOf(err))
	}
}

// A commit is found in the head after its answer was lost, and a claim comes before
// it is settled. Whether that was built on it, nobody can say.
func TestACommitThatWasReadBackBeforeAFenceIsUnknownIfTheHistoryCantBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		h := store.Open()
		s := &onAppend{Store: h}
		cfg := patient()
		cfg.RetryBudget = time.Second
		sent := 0
		s.append = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
			switch sent++; sent {
			case 1:
				require.NoError(t, h.Append(ctx, prior, rec))
				class := driver.Class{Disposition: exitcodes.Retry, Outcome: driver.Unknown}
				return &driver.Error{Class: class, Store: s.String(), Op: "append", Err: errFirst}
			case 3: // the one that is to settle it
				next, err := catalog.Open(ctx, store.Open(), catalog.Config{Generation: 2})
				require.NoError(t, err)
				require.NoError(t, next.Close())
				h.Inject(func(call memory.Call) memory.Fault {
					if call.Method == "Claims" {
						return memory.Refuse
					}
					return memory.Pass
				})
			}
			return h.Append(ctx, prior, rec)
		}
		c, err := catalog.Open(t.Context(), s, cfg)
		require.NoError(t, err)
		err = c.Update(t.Context(), set("k"))
		require.ErrorIs(t, err, catalog.ErrUnknownOutcome)
		require.ErrorIs(t, err, fence.ErrSuperseded)
		require.Equal(t, 3, sent)
		h.Inject(nil)
		err = c.Close()
		require.ErrorIs(t, err, fence.ErrSuperseded)
		require.NotErrorIs(t, err, catalog.ErrLostCommit)
	})
}
