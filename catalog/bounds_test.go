package catalog_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
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

func TestOpenEndsWithinItsContextAndClaimTimeoutAlsoWhileItSettles(t *testing.T) {
	for name, fault := range map[string]memory.Fault{"refused": memory.Refuse, "no answer": memory.LoseRequest} {
		for _, bound := range []struct {
			name           string
			ctx, claim     time.Duration
			cancel, raises bool
		}{
			{"context", time.Second, time.Minute, false, false},
			{"ClaimTimeout", time.Minute, time.Second, false, false},
			{"cancelled", time.Second, time.Minute, true, false},
			{"context, raised", time.Second, time.Minute, false, true},
		} {
			t.Run(name+" "+bound.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := memory.New()
					if bound.raises {
						c, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1})
						require.NoError(t, err)
						require.NoError(t, c.Close())
					}
					h := store.Open()
					h.Inject(func(c memory.Call) memory.Fault {
						switch c.Method {
						case "Install":
							return memory.LoseAnswer
						case "Append":
							return fault
						}
						return memory.Pass
					})
					ctx, cancel := context.WithTimeout(t.Context(), bound.ctx)
					if bound.cancel {
						ctx, cancel = context.WithCancel(t.Context())
						time.AfterFunc(bound.ctx, cancel)
					}
					defer cancel()
					cfg := catalog.Config{Generation: 1, ClaimTimeout: bound.claim, RetryBudget: time.Hour}
					began, err := time.Now(), error(nil)
					if bound.raises {
						_, err = catalog.Raise(ctx, h, cfg, catalog.RaiseOptions{Reason: "test"})
					} else {
						_, err = catalog.Open(ctx, h, cfg)
					}
					require.LessOrEqual(t, time.Since(began), 2*time.Second)
					require.ErrorIs(t, err, catalog.ErrUnknownOutcome)
				})
			})
		}
	}
}

// silent is a store whose chosen calls answer only when their context ends.
type silent struct {
	driver.Store
	append, install, head atomic.Bool
}

func (s *silent) hang(ctx context.Context, op string) error {
	<-ctx.Done()
	return &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry, Outcome: driver.Unknown}, Store: s.String(), Op: op, Err: ctx.Err()}
}

func (s *silent) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	if s.append.Load() {
		return s.hang(ctx, "append")
	}
	return s.Store.Append(ctx, prior, rec)
}

func (s *silent) Head(ctx context.Context) (driver.Head, error) {
	if s.head.Load() {
		return driver.Head{}, s.hang(ctx, "head")
	}
	return s.Store.Head(ctx)
}

func (s *silent) Claim(ctx context.Context) (driver.Claiming, error) {
	c, err := s.Store.Claim(ctx)
	return &silentClaiming{c, s}, err
}

type silentClaiming struct {
	driver.Claiming
	of *silent
}

func (c *silentClaiming) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	err := c.Claiming.Install(ctx, claim, rec, when...)
	if err == nil && c.of.install.Load() {
		return c.of.hang(ctx, "install")
	}
	return err
}

func TestOpenEndsWithinItsContextWhereTheStoreDoesNotAnswer(t *testing.T) {
	for _, hangs := range []string{"install", "append"} {
		synctest.Test(t, func(t *testing.T) {
			store := &silent{Store: memory.New()}
			store.install.Store(true)
			store.append.Store(hangs == "append")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			c, err := catalog.Open(ctx, store, catalog.Config{Generation: 1, StoreTimeout: 600 * time.Millisecond})
			require.LessOrEqual(t, time.Since(began), time.Second)
			if hangs == "append" {
				require.ErrorIs(t, err, catalog.ErrUnknownOutcome)
				return
			}
			require.NoError(t, err, "it was found in the head")
			require.NoError(t, c.Close())
		})
	}
}

// stuck is a store whose scratch places neither answer nor can be removed.
type stuck struct{ *memory.Store }

func (s stuck) Scratch(ctx context.Context) (driver.Scratch, error) {
	scratch, err := s.Store.Scratch(ctx)
	for i, place := range scratch.Stores {
		hangs := &silent{Store: place}
		hangs.append.Store(true)
		scratch.Stores[i] = hangs
	}
	scratch.Discard = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	return scratch, err
}

func TestOpenEndsSoonAfterItsContextWhereTheCheckOfTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := catalog.Open(ctx, stuck{memory.New()}, catalog.Config{Generation: 1, StoreTimeout: time.Minute, ClaimTimeout: time.Hour})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, time.Since(began), 2*time.Second)
	})
}

// A store whose answer to a claim was lost, and that does not answer at all from
// then on.
func TestOpenEndsWithinClaimTimeoutWhereTheStoreStopsToAnswer(t *testing.T) {
	for name, claim := range map[string]func(context.Context, driver.Store, catalog.Config) error{
		"Open": func(ctx context.Context, s driver.Store, cfg catalog.Config) error {
			_, err := catalog.Open(ctx, s, cfg)
			return err
		},
		"Raise": func(ctx context.Context, s driver.Store, cfg catalog.Config) error {
			_, err := catalog.Raise(ctx, s, cfg, catalog.RaiseOptions{Reason: "test"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shared := memory.New()
				c, err := catalog.Open(t.Context(), shared.Open(), catalog.Config{Generation: 1})
				require.NoError(t, err)
				require.NoError(t, c.Close())
				handle := shared.Open()
				store := &silent{Store: handle}
				handle.Inject(func(c memory.Call) memory.Fault {
					if c.Method != "Install" {
						return memory.Pass
					}
					store.head.Store(true)
					return memory.LoseRequest
				})
				began := time.Now()
				err = claim(t.Context(), store, catalog.Config{Generation: 1, ClaimTimeout: time.Second, StoreTimeout: time.Minute})
				require.LessOrEqual(t, time.Since(began), time.Second)
				require.ErrorIs(t, err, catalog.ErrUnknownOutcome)
				require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
			})
		})
	}
}

func TestUpdatesThatWaitAreToldOfAFenceBeforeAnythingElseIsLookedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		h := store.Open()
		c, err := catalog.Open(t.Context(), h, catalog.Config{Generation: 1, RetryBudget: time.Hour})
		require.NoError(t, err)
		goOn, inFlight := make(chan struct{}), make(chan error, 1)
		go func() {
			inFlight <- c.Update(t.Context(), func(tx *catalog.Tx) error { <-goOn; return set("a")(tx) })
		}()
		synctest.Wait()
		queued := make(chan error, 3)
		for range cap(queued) {
			go func() { queued <- c.Update(t.Context(), set("b")) }()
		}
		synctest.Wait()
		h.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Claims" { // what follows my claim can't be looked up
				return memory.Refuse
			}
			return memory.Pass
		})
		next, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 2})
		require.NoError(t, err)
		<-c.Done()
		synctest.Wait()
		require.Len(t, queued, 3, "they wait for the function of another")
		for range 3 {
			err := <-queued
			require.ErrorIs(t, err, fence.ErrSuperseded)
			require.Equal(t, driver.NotApplied, catalog.OutcomeOf(err))
		}
		close(goOn)
		synctest.Wait()
		require.ErrorIs(t, <-inFlight, fence.ErrSuperseded)
		require.ErrorIs(t, c.Close(), fence.ErrSuperseded)
		require.NoError(t, next.Close())
	})
}

// Two commits of one batch: the first is in doubt when the fence comes, and what
// became of it can't be looked up.
func TestWhatWasNotSentIsToldOfAFenceWhileTheCommitBeforeItIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		h := store.Open()
		c, err := catalog.Open(t.Context(), h, catalog.Config{Generation: 1, RetryBudget: time.Hour})
		require.NoError(t, err)
		h.Inject(func(call memory.Call) memory.Fault {
			switch call.Method {
			case "Claims":
				return memory.Refuse
			case "Append":
				return memory.LoseRequest
			}
			return memory.Pass
		})
		goOn, first, second := make(chan struct{}), make(chan error, 1), make(chan error, 1)
		go func() { _ = c.Update(t.Context(), func(*catalog.Tx) error { <-goOn; return nil }) }()
		for _, fate := range []chan error{first, second} { // too large for one commit
			synctest.Wait()
			go func() {
				fate <- c.Update(t.Context(), func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, "k", make([]byte, 3<<20)) })
			}()
		}
		synctest.Wait()
		close(goOn)
		synctest.Wait()
		next, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 2})
		require.NoError(t, err)
		err = <-second
		require.ErrorIs(t, err, fence.ErrSuperseded)
		require.Equal(t, driver.NotApplied, catalog.OutcomeOf(err))
		require.Empty(t, first)
		h.Inject(nil)
		err = <-first
		require.ErrorIs(t, err, fence.ErrSuperseded)
		require.Equal(t, driver.NotApplied, catalog.OutcomeOf(err))
		require.ErrorIs(t, c.Close(), fence.ErrSuperseded)
		require.NoError(t, next.Close())
	})
}

func TestUpdateInUpdateIsAnErrorAtOnceAndCloseReturns(t *testing.T) {
	c := holder(t, memory.New(), catalog.Config{Generation: 1})
	queued, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, outer := range []context.Context{context.Background(), queued} {
		for _, inner := range []context.Context{context.Background(), queued} {
			require.NoError(t, c.Update(outer, func(tx *catalog.Tx) error {
				require.ErrorIs(t, c.Update(inner, set("never")), catalog.ErrReentrant)
				require.ErrorIs(t, c.Close(), catalog.ErrReentrant)
				require.NoError(t, c.Confirm(inner), "it waits for no Update")
				require.NoError(t, c.View(func(*catalog.Reader) error { return nil }))
				return set("a")(tx)
			}))
			require.NoError(t, c.View(func(*catalog.Reader) error { return c.Update(inner, set("b")) }), "a View keeps nobody waiting")
		}
	}
	deep := func(tx *catalog.Tx) error {
		return recurse(200, func() error { return c.Update(queued, set("never")) })
	}
	require.ErrorIs(t, c.Update(queued, deep), catalog.ErrReentrant)
	require.ErrorIs(t, c.Update(queued, selfish{c}.update), catalog.ErrReentrant)
	require.ErrorIs(t, c.Update(queued, (&selfish{c}).update), catalog.ErrReentrant)
	other := holder(t, memory.New(), catalog.Config{Generation: 1})
	require.NoError(t, c.Update(queued, func(*catalog.Tx) error { return other.Update(queued, set("a")) }), "it is another catalog")
	require.Equal(t, []string{"a", "b"}, keys(t, c))
}

func recurse(n int, fn func() error) error {
	if n == 0 {
		return fn()
	}
	return recurse(n-1, fn)
}

type selfish struct{ c *catalog.Catalog }

func (s selfish) update(*catalog.Tx) error { return s.c.Update(context.Background(), set("never")) }

// An Update of one catalog by a function of another is queued behind whatever
// that one is doing.
func TestAnUpdateOfAnotherCatalogIsQueuedThoughThatIsBusy(t *testing.T) {
	a, b := holder(t, memory.New(), catalog.Config{Generation: 1}), holder(t, memory.New(), catalog.Config{Generation: 1})
	entered, goOn, fates := make(chan struct{}), make(chan struct{}), make(chan error, 2)
	go func() {
		fates <- a.Update(context.Background(), func(tx *catalog.Tx) error { close(entered); <-goOn; return set("a")(tx) })
	}()
	<-entered
	go func() {
		fates <- b.Update(context.Background(), func(*catalog.Tx) error {
			time.AfterFunc(time.Millisecond, func() { close(goOn) })
			return a.Update(context.Background(), set("b"))
		})
	}()
	require.NoError(t, <-fates)
	require.NoError(t, <-fates)
	require.Equal(t, []string{"a", "b"}, keys(t, a))
}

// A function that works through several catalogs is the same one for each of
// them, and on the stack of whoever is further along.
func TestAnUpdateOfAnotherCatalogIsQueuedThoughTheSameFunctionRunsThere(t *testing.T) {
	a, b := holder(t, memory.New(), catalog.Config{Generation: 1}), holder(t, memory.New(), catalog.Config{Generation: 1})
	var update func(key string, inside func(), all ...*catalog.Catalog) error
	update = func(key string, inside func(), all ...*catalog.Catalog) error {
		return all[0].Update(t.Context(), func(tx *catalog.Tx) error {
			inside()
			if rest := all[1:]; len(rest) > 0 {
				if err := update(key, inside, rest...); err != nil {
					return err
				}
			}
			return set(key)(tx)
		})
	}
	entered, goOn, fates := make(chan struct{}), make(chan struct{}), make(chan error, 2)
	go func() { fates <- update("one", func() { close(entered); <-goOn }, b) }()
	<-entered
	release := sync.OnceFunc(func() { time.AfterFunc(time.Millisecond, func() { close(goOn) }) })
	go func() { fates <- update("two", release, a, b) }()
	require.NoError(t, <-fates)
	require.NoError(t, <-fates)
	require.Equal(t, []string{"two"}, keys(t, a))
	require.Equal(t, []string{"one", "two"}, keys(t, b))
	require.ErrorIs(t, a.Update(context.Background(), func(*catalog.Tx) error {
		return b.Update(context.Background(), func(*catalog.Tx) error { return a.Update(context.Background(), set("never")) })
	}), catalog.ErrReentrant, "it is further down on the same stack")
}

func TestAnUpdateBesideOneThatRunsIsQueuedAndNotRefused(t *testing.T) {
	c := holder(t, memory.New(), catalog.Config{Generation: 1})
	entered, goOn, fates := make(chan struct{}), make(chan struct{}), make(chan error, 2)
	go func() {
		fates <- c.Update(context.Background(), func(tx *catalog.Tx) error { close(entered); <-goOn; return set("a")(tx) })
	}()
	<-entered
	go func() { fates <- c.Update(context.Background(), set("b")) }()
	close(goOn)
	require.NoError(t, <-fates)
	require.NoError(t, <-fates)
	require.Equal(t, []string{"a", "b"}, keys(t, c))
}

func TestCloseReturnsThoughAFunctionGivenToUpdateNeverDoes(t *testing.T) {
	for name, ctx := range map[string]context.Context{"on the caller's goroutine": context.Background(), "on the committer's": t.Context()} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			c, err := catalog.Open(t.Context(), store.Open(), catalog.Config{Generation: 1, StoreTimeout: 50 * time.Millisecond})
			require.NoError(t, err)
			entered, goOn, stuck, queued := make(chan struct{}), make(chan struct{}), make(chan error, 1), make(chan error, 1)
			go func() {
				stuck <- c.Update(ctx, func(tx *catalog.Tx) error { close(entered); <-goOn; return set("a")(tx) })
			}()
			<-entered
			go func() { queued <- c.Update(ctx, set("b")) }()
			require.ErrorIs(t, c.Close(), catalog.ErrStillRunning)
			require.ErrorIs(t, c.Close(), catalog.ErrStillRunning, "and again")
			require.ErrorIs(t, <-queued, catalog.ErrClosed)
			close(goOn)
			require.ErrorIs(t, <-stuck, catalog.ErrClosed)
			head, err := store.Head(t.Context())
			require.NoError(t, err)
			require.Equal(t, head.Claim.Revision, head.Revision, "something of it was written")
		})
	}
}

func TestCloseWaitsForFunctionsThatReturnOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := catalog.Open(t.Context(), memory.New(), catalog.Config{Generation: 1})
		require.NoError(t, err)
		fates := make(chan error, 5)
		for i := range cap(fates) {
			go func() {
				fates <- c.Update(t.Context(), func(tx *catalog.Tx) error {
					<-time.After(4 * time.Second) // by the bubble's clock
					return set(fmt.Sprint(i))(tx)
				})
			}()
		}
		synctest.Wait()
		require.NoError(t, c.Close())
		for range cap(fates) {
			require.NoError(t, <-fates)
		}
	})
}

func TestARehearsalIsNotDeadlockedByItsOwnFunction(t *testing.T) {
	store := memory.New()
	c := holder(t, store, catalog.Config{Generation: 1})
	require.NoError(t, c.Update(t.Context(), set("a")))
	r, err := catalog.Rehearse(t.Context(), store.Open(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, r.Update(func(tx *catalog.Tx) error {
		require.ErrorIs(t, r.Update(set("never")), catalog.ErrReentrant)
		require.Equal(t, []string{"a"}, keys(t, r))
		require.Empty(t, r.Migrations())
		return set("b")(tx)
	}))
	require.Equal(t, []string{"a", "b"}, keys(t, r))
	require.NoError(t, r.Close())
}

func TestAClaimWhoseLastTryIsCutOffSaysWhatTheOneBeforeHasFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, tries := memory.New(), 0
		handle := store.Open()
		handle.Inject(func(c memory.Call) memory.Fault {
			if c.Method != "Claim" {
				return memory.Pass
			}
			if tries++; tries == 1 {
				return memory.Refuse
			}
			<-time.After(time.Minute)
			return memory.Pass
		})
		_, err := catalog.Open(t.Context(), handle, catalog.Config{Generation: 1, ClaimTimeout: time.Second})
		require.Equal(t, 2, tries)
		require.ErrorContains(t, err, "an injected fault; and the last try was cut off")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
	})
}
