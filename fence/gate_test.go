package fence_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// A head is a catalog as far as a gate looks at it.
type head struct {
	mu    sync.Mutex
	token fence.Token
	err   error
	looks atomic.Int64
}

func headAt(t fence.Token) *head { return &head{token: t} }

func (h *head) claim(t fence.Token) { h.set(t, nil) }

func (h *head) set(t fence.Token, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.token, h.err = t, err
}

func (h *head) newest(context.Context, string) (fence.Token, fence.Holder, error) {
	h.looks.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.token, someone(), h.err
}

func newGate(t *testing.T, cfg fence.GateConfig) *fence.Gate {
	t.Helper()
	g, err := fence.NewGate(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	return g
}

func admit(t *testing.T, g *fence.Gate, resource string, tok fence.Token) *fence.Admission {
	t.Helper()
	a, err := g.Admit(t.Context(), resource, tok)
	require.NoError(t, err)
	return a
}

func refused(t *testing.T, g *fence.Gate, resource string, tok fence.Token) error {
	t.Helper()
	a, err := g.Admit(t.Context(), resource, tok)
	require.Error(t, err)
	require.Nil(t, a)
	return err
}

func TestALowerTokenIsRefusedByAHintThatSaysWhoLeads(t *testing.T) {
	t.Parallel()
	h := headAt(token(7, 41))
	g := newGate(t, fence.GateConfig{Name: "http", Newest: h.newest})
	admit(t, g, "orders", token(7, 41)).Release()
	h.claim(token(8, 42))
	admit(t, g, "orders", token(7, 41)).Release() // nobody has come with the newer one yet
	admit(t, g, "orders", token(8, 42)).Release()
	err := refused(t, g, "orders", token(7, 41))
	require.Equal(t, &fence.Error{Held: token(7, 41), Current: token(8, 42), By: someone(), Guard: "http orders"}, err)
	require.NotErrorIs(t, err, fence.ErrSuperseded)
	require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
}

func TestAResourceHasItsOwnRegister(t *testing.T) {
	t.Parallel()
	of := map[string]*head{"orders": headAt(token(8, 42)), "stock": headAt(token(7, 41))}
	g := newGate(t, fence.GateConfig{Newest: func(ctx context.Context, resource string) (fence.Token, fence.Holder, error) {
		return of[resource].newest(ctx, resource)
	}})
	admit(t, g, "orders", token(8, 42)).Release()
	admit(t, g, "stock", token(7, 41)).Release()
	require.ErrorIs(t, refused(t, g, "orders", token(7, 41)), fence.ErrFenced)
	require.ErrorIs(t, refused(t, g, "stock", token(8, 42)), fence.ErrNeverIssued)
}

func TestAForgedTokenLocksNobodyOut(t *testing.T) {
	t.Parallel()
	h := headAt(token(7, 41))
	g := newGate(t, fence.GateConfig{Newest: h.newest})
	for _, forged := range []fence.Token{token(7, 42), token(8, 1), token(generation.Max, epoch.Max)} {
		err := refused(t, g, "orders", forged)
		require.ErrorIs(t, err, fence.ErrNeverIssued)
		require.NotErrorIs(t, err, fence.ErrFenced)
		admit(t, g, "orders", token(7, 41)).Release()
	}
	for _, forged := range []fence.Token{token(6, 41), token(6, 99), token(0, epoch.Max)} {
		require.ErrorIs(t, refused(t, g, "orders", forged), fence.ErrNeverIssued, "an older generation has no epoch as high")
	}
	require.ErrorIs(t, refused(t, g, "orders", fence.Token{}), fence.ErrMissing)
	require.ErrorIs(t, refused(t, g, "orders", token(generation.Max+1, 1)), fence.ErrMalformed)
	require.Equal(t, []fence.RegisterState{{Resource: "orders", Token: token(7, 41), By: someone()}}, g.Registers())
}

func TestAnOlderTokenIsRefusedByAnEmptyRegisterToo(t *testing.T) {
	t.Parallel()
	h := headAt(token(8, 42))
	g := newGate(t, fence.GateConfig{Newest: h.newest})
	require.ErrorIs(t, refused(t, g, "orders", token(7, 41)), fence.ErrFenced)
	h.set(fence.Token{}, errors.New("out of reach"))
	require.ErrorIs(t, refused(t, g, "orders", token(7, 41)), fence.ErrFenced, "the register rose to the newest")
	admit(t, g, "orders", token(8, 42)).Release()
}

func TestATokenThatEqualsTheRegisterCostsNoLook(t *testing.T) {
	t.Parallel()
	h := headAt(token(7, 41))
	g := newGate(t, fence.GateConfig{Newest: h.newest})
	for range 100 {
		admit(t, g, "orders", token(7, 41)).Release()
		require.Error(t, refused(t, g, "orders", token(7, 40)))
	}
	require.EqualValues(t, 1, h.looks.Load())
}

func TestACatalogOutOfReachIsNeitherAnAcceptanceNorAFence(t *testing.T) {
	t.Parallel()
	h := headAt(token(7, 41))
	g := newGate(t, fence.GateConfig{Newest: h.newest})
	admit(t, g, "orders", token(7, 41)).Release()
	for _, why := range []error{errors.New("dial: refused"), fence.ErrFenced, fence.ErrNeverIssued, &fence.Error{Held: token(1, 1), Current: token(2, 2)}} {
		h.set(fence.Token{}, why)
		err := refused(t, g, "orders", token(8, 42))
		var undecided *fence.UndecidedError
		require.ErrorAs(t, err, &undecided)
		require.ErrorIs(t, err, fence.ErrUnverified)
		require.NotErrorIs(t, err, fence.ErrFenced)
		require.NotErrorIs(t, err, fence.ErrNeverIssued)
		require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
		require.ErrorContains(t, err, why.Error())
	}
	admit(t, g, "orders", token(7, 41)).Release()
	h.claim(token(8, 42))
	admit(t, g, "orders", token(8, 42)).Release()
}

func TestThoseWhoWaitShareALookThatBeganAfterTheyCame(t *testing.T) {
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) {
		h := headAt(token(7, 41))
		first, entered := make(chan struct{}), make(chan struct{})
		var once sync.Once
		g, err := fence.NewGate(fence.GateConfig{Newest: func(ctx context.Context, r string) (fence.Token, fence.Holder, error) {
			was, by, err := h.newest(ctx, r) // what the store said, some time ago
			once.Do(func() { close(entered); <-first })
			return was, by, err
		}})
		require.NoError(t, err)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := g.Admit(t.Context(), "orders", token(9, 99))
			require.ErrorIs(t, err, fence.ErrNeverIssued)
		})
		<-entered
		h.claim(token(8, 42)) // behind the look that is under way
		for range 100 {
			wg.Go(func() {
				a, err := g.Admit(t.Context(), "orders", token(8, 42))
				require.NoError(t, err)
				a.Release()
			})
		}
		synctest.Wait()
		close(first)
		wg.Wait()
		require.EqualValues(t, 2, h.looks.Load())
		require.NoError(t, g.Close())
	})
}

func TestACatalogThatHangsHoldsNobodyUpForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := fence.NewGate(fence.GateConfig{Newest: func(ctx context.Context, _ string) (fence.Token, fence.Holder, error) {
			<-ctx.Done()
			return fence.Token{}, fence.Holder{}, ctx.Err()
		}})
		require.NoError(t, err)
		begun := time.Now()
		require.ErrorIs(t, refused(t, g, "orders", token(7, 41)), fence.ErrUnverified)
		require.LessOrEqual(t, time.Since(begun), 2*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = g.Admit(ctx, "orders", token(7, 41))
		require.ErrorIs(t, err, fence.ErrUnverified)
		require.LessOrEqual(t, time.Since(begun), 2*time.Second+time.Millisecond)
		require.NoError(t, g.Close())
	})
}

func TestForgedTokensCauseABoundedNumberOfLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := headAt(token(7, 41))
		var now, most atomic.Int64
		g, err := fence.NewGate(fence.GateConfig{Newest: func(ctx context.Context, r string) (fence.Token, fence.Holder, error) {
			defer now.Add(-1)
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			<-time.After(time.Millisecond)
			return h.newest(ctx, r)
		}})
		require.NoError(t, err)
		begun := time.Now()
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				for j := range 20 {
					_, err := g.Admit(t.Context(), fmt.Sprintf("resource %d", i%2), token(8, epoch.Epoch(j+1)))
					require.ErrorIs(t, err, fence.ErrNeverIssued)
				}
			})
		}
		wg.Wait()
		require.LessOrEqual(t, most.Load(), int64(2), "one at a time for each resource")
		require.LessOrEqual(t, h.looks.Load(), 2*(int64(time.Since(begun)/(10*time.Millisecond))+1))
		require.Empty(t, g.Registers(), "what was forged makes no register")
		for i := range 300 {
			wg.Go(func() {
				admit(t, g, fmt.Sprintf("tenant %d", i), token(7, 41)).Release()
			})
		}
		wg.Wait()
		require.EqualValues(t, 16, most.Load(), "of all resources together")
		require.NoError(t, g.Close())
	})
}

func TestWorkUnderAnotherTokenEndsBeforeTheNewestIsAdmitted(t *testing.T) {
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) {
		h := headAt(token(7, 41))
		g, err := fence.NewGate(fence.GateConfig{Newest: h.newest})
		require.NoError(t, err)
		old, other := admit(t, g, "orders", token(7, 41)), admit(t, g, "orders", token(7, 41))
		elsewhere := admit(t, g, "stock", token(7, 41))
		h.claim(token(8, 42))
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				a, err := g.Admit(t.Context(), "orders", token(8, 42))
				require.NoError(t, err)
				admitted.Add(1)
				defer a.Release()
				require.NoError(t, a.Stale())
			})
		}
		<-old.Context().Done()
		var why *fence.Error
		require.ErrorAs(t, context.Cause(old.Context()), &why)
		require.Equal(t, token(8, 42), why.Current)
		require.Equal(t, why, old.Stale())
		require.NoError(t, elsewhere.Context().Err(), "another resource")
		require.ErrorIs(t, refused(t, g, "orders", token(7, 41)), fence.ErrFenced)
		old.Release()
		old.Release()
		synctest.Wait()
		require.Zero(t, admitted.Load(), "one is still inside")
		other.Release()
		wg.Wait()
		require.EqualValues(t, 3, admitted.Load())
		elsewhere.Release()
		require.NoError(t, g.Close())
	})
}

func TestWorkThatDoesNotEndKeepsTheNewestWaitingForABoundOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := headAt(token(7, 41))
		g, err := fence.NewGate(fence.GateConfig{Newest: h.newest})
		require.NoError(t, err)
		old := admit(t, g, "orders", token(7, 41))
		h.claim(token(8, 42))
		for range 3 {
			begun := time.Now()
			err = refused(t, g, "orders", token(8, 42))
			require.LessOrEqual(t, time.Since(begun), 1020*time.Millisecond)
			require.GreaterOrEqual(t, time.Since(begun), time.Second)
			require.ErrorIs(t, err, fence.ErrDraining)
			require.ErrorContains(t, err, "1 of it after 1s")
			require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
			require.ErrorIs(t, refused(t, g, "orders", token(7, 41)), fence.ErrFenced, "it refuses the older one meanwhile")
		}
		require.EqualValues(t, 2, h.looks.Load())
		old.Release()
		admit(t, g, "orders", token(8, 42)).Release()
		require.NoError(t, g.Close())
	})
}

func TestWorkWhoseOwnContextHasEndedIsWaitedForAsWell(t *testing.T) {
	t.Parallel()
	h := headAt(token(7, 41))
	g := newGate(t, fence.GateConfig{Newest: h.newest, DrainTimeout: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	old, err := g.Admit(ctx, "orders", token(7, 41))
	require.NoError(t, err)
	cancel()
	h.claim(token(8, 42))
	stale := make(chan struct{})
	old.OnStale(func() { close(stale) })
	require.ErrorIs(t, refused(t, g, "orders", token(8, 42)), fence.ErrDraining)
	<-stale
	old.Release()
	admit(t, g, "orders", token(8, 42)).Release()
}

func TestResourcesAreBoundedInNumberAndInTheirNames(t *testing.T) {
	t.Parallel()
	h := headAt(token(7, 41))
	g := newGate(t, fence.GateConfig{Newest: h.newest, MaxResources: 2})
	for _, name := range []string{"", strings.Repeat("x", fence.MaxResourceName+1), "a\nb", "a\x00", "\xff", "a\u202eb"} {
		require.ErrorIs(t, refused(t, g, name, token(7, 41)), fence.ErrResource, "%q", name)
	}
	admit(t, g, strings.Repeat("x", fence.MaxResourceName), token(7, 41)).Release()
	admit(t, g, "b", token(7, 41)).Release()
	require.ErrorIs(t, refused(t, g, "c", token(7, 41)), fence.ErrTooManyResources)
	require.NoError(t, g.Reset(t.Context(), "b"))
	admit(t, g, "c", token(7, 41)).Release()
	require.ErrorIs(t, refused(t, g, "b", token(7, 41)), fence.ErrTooManyResources)
}

func TestARegisterThatWasResetTakesWhatTheCatalogSays(t *testing.T) {
	t.Parallel()
	h := headAt(token(8, 42))
	g := newGate(t, fence.GateConfig{Newest: h.newest, DrainTimeout: time.Millisecond})
	inside := admit(t, g, "orders", token(8, 42))
	h.claim(token(6, 30)) // a backup was restored
	require.ErrorIs(t, refused(t, g, "orders", token(6, 30)), fence.ErrFenced)
	require.NoError(t, g.Reset(t.Context(), "orders"))
	require.NoError(t, g.Reset(t.Context(), "no such resource"))
	require.NoError(t, inside.Context().Err())
	require.ErrorIs(t, refused(t, g, "orders", token(8, 42)), fence.ErrNeverIssued)
	require.ErrorIs(t, refused(t, g, "orders", token(6, 30)), fence.ErrDraining, "what is inside is waited for")
	require.ErrorIs(t, inside.Stale(), fence.ErrFenced)
	inside.Release()
	admit(t, g, "orders", token(6, 30)).Release()
	inside = admit(t, g, "orders", token(6, 30))
	require.NoError(t, g.Reset(t.Context(), "orders"))
	admit(t, g, "orders", token(6, 30)).Release()
	require.NoError(t, inside.Stale(), "it works under the token that was found again")
	inside.Release()
	require.NoError(t, g.Reset(t.Context(), "orders"))
	require.Empty(t, g.Registers())
}

func TestAGateThatWasClosedAdmitsNobody(t *testing.T) {
	t.Parallel()
	g := newGate(t, fence.GateConfig{Newest: headAt(token(7, 41)).newest})
	inside := admit(t, g, "orders", token(7, 41))
	require.NoError(t, g.Close())
	require.ErrorIs(t, refused(t, g, "orders", token(7, 41)), fence.ErrGateClosed)
	require.ErrorIs(t, refused(t, g, "stock", token(7, 41)), fence.ErrGateClosed)
	require.ErrorIs(t, g.Reset(t.Context(), "orders"), fence.ErrGateClosed)
	inside.Release()
}

func TestAGateNamesEveryMistakeOfItsConfig(t *testing.T) {
	t.Parallel()
	_, err := fence.NewGate(fence.GateConfig{Name: "a\n", ReadTimeout: -1, MaxResources: 5000})
	for _, part := range []string{"Name", "Newest", "ReadTimeout", "MaxResources"} {
		require.ErrorContains(t, err, part)
	}
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
}

// wholeVar has all steps played. Otherwise a part of them is.
const wholeVar = "FENCEPOST_WHOLE"

// Random steps of a catalog and of holders, against what the rules say.
func TestNoSequenceOfStepsAdmitsAStaleTokenBesideANewerOne(t *testing.T) {
	synctest.Test(t, playSteps)
}

func playSteps(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	h := headAt(token(1, 1))
	g, err := fence.NewGate(fence.GateConfig{Newest: h.newest, DrainTimeout: time.Nanosecond})
	require.NoError(t, err)
	newest, registers := token(1, 1), map[string]fence.Token{}
	inside := map[string][]*fence.Admission{}
	risen := 0
	steps := 10_000
	if os.Getenv(wholeVar) != "" {
		steps = 100_000
	}
	for range steps {
		resource := []string{"a", "b"}[rnd.IntN(2)]
		if rnd.IntN(60) == 0 {
			require.NoError(t, g.Reset(t.Context(), resource))
			registers[resource] = fence.Token{}
		}
		if rnd.IntN(40) == 0 {
			newest, _ = newest.Next(newest.Generation + generation.Generation(rnd.IntN(2)))
			h.claim(newest)
		}
		if len(inside[resource]) > 0 && rnd.IntN(2) == 0 {
			inside[resource][0].Release()
			inside[resource] = inside[resource][1:]
		}
		held := token(newest.Generation-generation.Generation(rnd.IntN(2)), newest.Epoch-epoch.Epoch(rnd.IntN(3))+1)
		if rnd.IntN(4) > 0 {
			held = registers[resource]
		}
		if rnd.IntN(8) == 0 {
			held = newest
		}
		before := registers[resource]
		if held.Compare(before) > 0 && held.Compare(newest) <= 0 {
			registers[resource] = newest
			risen++
		}
		a, err := g.Admit(t.Context(), resource, held)
		others := 0
		for _, in := range inside[resource] {
			if !registers[resource].IsZero() && in.Token() != registers[resource] {
				others++
				require.Error(t, in.Stale())
			}
		}
		switch {
		case held.IsZero():
			require.ErrorIs(t, err, fence.ErrMissing)
		case held.Compare(newest) > 0 && held.Compare(before) > 0:
			require.ErrorIs(t, err, fence.ErrNeverIssued)
		case held != registers[resource]:
			require.True(t, errors.Is(err, fence.ErrFenced) || errors.Is(err, fence.ErrNeverIssued), "%v", err)
		case others > 0:
			require.ErrorIs(t, err, fence.ErrDraining)
		default:
			require.NoError(t, err)
			inside[resource] = append(inside[resource], a)
		}
	}
	require.Greater(t, risen, 100)
	require.NoError(t, g.Close())
}

func BenchmarkAGateWhoseTokenIsTheRegister(b *testing.B) {
	g, err := fence.NewGate(fence.GateConfig{Newest: headAt(token(7, 41)).newest})
	require.NoError(b, err)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			a, err := g.Admit(b.Context(), "orders", token(7, 41))
			if err != nil {
				b.Error(err)
				return
			}
			a.Release()
		}
	})
}
