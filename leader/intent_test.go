package leader_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// meanwhile returns a handle of store by which fn is called once, in the middle of
// whatever uses the handle: before its call of the store of that number. What is
// returned last reports whether there was such a call.
func meanwhile(store *memory.Store, call int64, fn func()) (driver.Store, func() bool) {
	handle := store.Open()
	var calls atomic.Int64
	handle.Inject(func(memory.Call) memory.Fault {
		if calls.Add(1) == call+1 {
			fn()
		}
		return memory.Pass
	})
	return handle, func() bool { return calls.Load() > call }
}

func promoteAs(ctx context.Context, s driver.Store, g generation.Generation, by string, force bool) error {
	_, err := leader.Promote(ctx, s, catalog.Config{}, g, leader.PromoteOptions{By: by, Force: force})
	return err
}

func abortAs(ctx context.Context, s driver.Store, g generation.Generation, by string) error {
	_, err := leader.Abort(ctx, s, catalog.Config{}, g, leader.AbortOptions{By: by})
	return err
}

// claimAs claims for a process of g, as package leader does: on condition that the
// intent is what it has read, and only if that says so.
func claimAs(ctx context.Context, s driver.Store, g generation.Generation) error {
	intent, err := catalog.ReadNote[leader.Intent](ctx, catalog.NewBoard(s, catalog.Config{}), "promote")
	if err != nil || intent.Value.Generation != g {
		return errors.Join(err, errors.New("not promoted"))
	}
	f, err := catalog.Follow(ctx, s, catalog.Config{Generation: g})
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	c, err := f.Open(ctx, catalog.ClaimOptions{IfLower: true, IfNotes: []driver.Note{intent.Note()}})
	if err == nil {
		err = c.Close()
	}
	return err
}

// kept returns the promotions and aborts of the history as words.
func kept(t *testing.T, s driver.Store) (all []string) {
	t.Helper()
	changes, err := leader.Changes(t.Context(), s, catalog.Config{})
	require.NoError(t, err)
	for _, c := range changes {
		all = append(all, fmt.Sprintf("%s %v by %s", c.Kind, c.Generation, c.By))
	}
	return all
}

// An act is what somebody else does while an abort runs, and what the history has of
// it: nothing of a claim.
type act struct {
	kept string
	do   func(ctx context.Context, s driver.Store) error
}

func claimed(g generation.Generation) act {
	return act{do: func(ctx context.Context, s driver.Store) error { return claimAs(ctx, s, g) }}
}

func promotes(g generation.Generation) act {
	return act{fmt.Sprintf("promoted %v by other", g), func(ctx context.Context, s driver.Store) error { return promoteAs(ctx, s, g, "other", true) }}
}

func aborts(g generation.Generation) act {
	return act{fmt.Sprintf("aborted %v by other", g), func(ctx context.Context, s driver.Store) error { return abortAs(ctx, s, g, "other") }}
}

// Each of them comes before each call that the abort makes.
func TestAnAbortTakesBackOnlyWhatItHasWritten(t *testing.T) {
	t.Parallel()
	others := [][]act{
		{claimed(6)}, {promotes(8)}, {aborts(9)}, {claimed(6), promotes(8)}, {promotes(8), claimed(8)}, {claimed(6), aborts(9)},
		{promotes(8), claimed(8), aborts(9), promotes(11)}, {aborts(6)}, {aborts(7), claimed(6)}, {promotes(7), claimed(7)},
	}
	var late, given int
	for _, g := range []generation.Generation{5, 6, 7} {
		for _, acts := range others {
			reached := true
			for call := int64(0); reached; call++ {
				synctest.Test(t, func(t *testing.T) {
					var tooLate bool
					if reached, tooLate = abortAmid(t, g, acts, call); tooLate {
						late++
					} else {
						given++
					}
				})
			}
		}
	}
	require.Positive(t, late)
	require.Positive(t, given)
}

// abortAmid aborts g, while others act before the call of that number.
func abortAmid(t *testing.T, g generation.Generation, acts []act, call int64) (reached, late bool) {
	t.Helper()
	ctx, store := t.Context(), memory.New()
	c, err := catalog.Open(ctx, store, catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, abortAs(ctx, store, 5, "op"))
	require.NoError(t, abortAs(ctx, store, 300, "slip"))
	require.NoError(t, promoteAs(ctx, store, 6, "op", false))
	want := []string{"aborted 5 by op", "aborted 300 by slip", "promoted 6 by op"}
	promoted := generation.Generation(6) // that no other one has replaced
	handle, happened := meanwhile(store, call, func() {
		for _, act := range acts {
			err := act.do(ctx, store.Open())
			if err != nil || act.kept == "" || act.kept == fmt.Sprintf("aborted %v by other", g) {
				continue // of two who abort one number, the history has one
			}
			want = append(want, act.kept)
			_, _ = fmt.Sscanf(act.kept, "promoted %d", &promoted)
		}
	})
	err = abortAs(ctx, handle, g, "me")
	head, herr := catalog.ReadHead(ctx, store, catalog.Config{})
	require.NoError(t, herr)
	intent, ierr := leader.ReadIntent(ctx, store, catalog.Config{})
	require.NoError(t, ierr)
	if err == nil {
		require.Less(t, head.Claim.Token.Generation, g, "both have won")
		require.Error(t, intent.Refuses(g))
	} else {
		var tooLate *leader.TooLateError
		require.ErrorAs(t, err, &tooLate)
		require.GreaterOrEqual(t, head.Claim.Token.Generation, g, "neither has won")
		require.NotContains(t, kept(t, store), fmt.Sprintf("aborted %v by me", g))
	}
	require.Subset(t, kept(t, store), want, "what others have done")
	var aborted *leader.AbortedError
	require.ErrorAs(t, promoteAs(ctx, store, 300, "op", true), &aborted)
	if intent.Generation == generation.None {
		require.ErrorAs(t, intent.Refuses(promoted), &aborted)
	} else {
		require.Equal(t, promoted, intent.Generation)
	}
	return happened(), err != nil
}

func TestANumberThatWasAbortedIsNeverHandedOutWhicheverComesFirst(t *testing.T) {
	t.Parallel()
	next := func(s driver.Store) generation.Generation {
		g, err := catalog.NewBoard(s, catalog.Config{}).NextGeneration(t.Context())
		assert.NoError(t, err)
		return g
	}
	begin := func() *memory.Store {
		store := memory.New()
		for range 7 {
			next(store)
		}
		return store
	}
	for call := int64(0); ; call++ { // a number is handed out in the middle of an abort
		store := begin()
		var before generation.Generation
		handle, reached := meanwhile(store, call, func() { before = next(store.Open()) })
		require.NoError(t, abortAs(t.Context(), handle, 8, "me"))
		if !reached() {
			require.Positive(t, call)
			break
		}
		require.Contains(t, []generation.Generation{8, 9}, before)
		require.Equal(t, before+1, next(store), "behind the abort")
	}
	for call := int64(0); ; call++ { // an abort in the middle of handing out
		store := begin()
		handle, reached := meanwhile(store, call, func() { assert.NoError(t, abortAs(t.Context(), store.Open(), 8, "me")) })
		got := next(handle)
		if !reached() {
			require.Positive(t, call)
			break
		}
		require.EqualValues(t, 9, got, "the abort was acknowledged before")
	}
}

func TestOfAnAbortAndAPromotionOfOneNumberTheAbortStands(t *testing.T) {
	t.Parallel()
	ops := map[string]func(context.Context, driver.Store) error{
		"abort":   func(ctx context.Context, s driver.Store) error { return abortAs(ctx, s, 8, "me") },
		"promote": func(ctx context.Context, s driver.Store) error { return promoteAs(ctx, s, 8, "me", true) },
	}
	for _, pair := range [][2]string{{"abort", "promote"}, {"promote", "abort"}, {"abort", "abort"}} {
		for call := int64(0); ; call++ {
			store := memory.New()
			var inner error
			handle, reached := meanwhile(store, call, func() { inner = ops[pair[1]](t.Context(), store.Open()) })
			err := ops[pair[0]](t.Context(), handle)
			if !reached() {
				require.Positive(t, call)
				break
			}
			var aborted *leader.AbortedError
			for i, err := range []error{err, inner} {
				if pair[i] == "abort" || err == nil {
					require.NoError(t, err)
				} else {
					require.ErrorAs(t, err, &aborted)
				}
			}
			intent, err := leader.ReadIntent(t.Context(), store, catalog.Config{})
			require.NoError(t, err)
			require.ErrorAs(t, intent.Refuses(8), &aborted)
			require.Len(t, intent.Aborted, 1)
			next, err := catalog.NewBoard(store, catalog.Config{}).NextGeneration(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 9, next)
		}
	}
}

// notes returns everything on the board.
func notes(t *testing.T, s driver.Store) []driver.Note {
	t.Helper()
	all, err := s.Notes(t.Context(), "")
	require.NoError(t, err)
	return all
}

func TestAPromotionOrAnAbortThatIsRefusedChangesNothing(t *testing.T) {
	t.Parallel()
	ctx, store := t.Context(), memory.New()
	c, err := catalog.Open(ctx, store, catalog.Config{Generation: 3})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, abortAs(ctx, store, 5, "op"))
	require.NoError(t, promoteAs(ctx, store, 7, "op", true))
	before := notes(t, store)
	var overtaken *leader.OvertakenError
	var aborted *leader.AbortedError
	var unknown *leader.NotHandedOutError
	var late *leader.TooLateError
	for _, row := range []struct {
		g     generation.Generation
		force bool
		want  any
	}{
		{2, true, fence.ErrSuperseded}, {5, true, &aborted}, {6, true, &overtaken}, {8, false, &unknown}, {300, false, &unknown},
		{generation.Max, true, generation.ErrNoRoom}, {generation.Max - 1, true, generation.ErrNoRoom}, {generation.Max - generation.Room + 1, true, generation.ErrNoRoom},
		{0, true, nil},
	} {
		err := promoteAs(ctx, store, row.g, "me", row.force)
		switch want := row.want.(type) {
		case error:
			require.ErrorIs(t, err, want, row.g)
		case nil:
			require.Error(t, err, row.g)
		default:
			require.ErrorAs(t, err, want, row.g)
		}
		require.Equal(t, before, notes(t, store), row.g)
	}
	for _, g := range []generation.Generation{2, 3} {
		require.ErrorAs(t, abortAs(ctx, store, g, "me"), &late)
		require.Error(t, leader.Reserve(ctx, store, catalog.Config{}, 2))
	}
	for _, g := range []generation.Generation{generation.Max, generation.Max - 1} {
		require.ErrorIs(t, abortAs(ctx, store, g, "me"), generation.ErrNoRoom)
		require.ErrorIs(t, leader.Reserve(ctx, store, catalog.Config{}, g), generation.ErrNoRoom)
	}
	require.ErrorAs(t, leader.Reserve(ctx, store, catalog.Config{}, 5), &aborted)
	for _, long := range []string{strings.Repeat("x", 501), "\xff"} {
		_, err := leader.Promote(ctx, store, catalog.Config{}, 9, leader.PromoteOptions{Force: true, Reason: long})
		require.ErrorContains(t, err, "Reason has")
		_, err = leader.Abort(ctx, store, catalog.Config{}, 9, leader.AbortOptions{By: long})
		require.ErrorContains(t, err, "By has")
	}
	require.Equal(t, before, notes(t, store))
}

func TestAPromotionThatIsOvertakenInItsMiddleHandsNoNumberOut(t *testing.T) {
	t.Parallel()
	for call := int64(0); ; call++ {
		store := memory.New()
		handle, reached := meanwhile(store, call, func() { assert.NoError(t, promoteAs(t.Context(), store.Open(), 20, "other", true)) })
		err := promoteAs(t.Context(), handle, 10, "me", true)
		if !reached() {
			require.Positive(t, call)
			return
		}
		var overtaken *leader.OvertakenError
		if err != nil {
			require.ErrorAs(t, err, &overtaken)
		}
		last, err := catalog.NewBoard(store, catalog.Config{}).LastGeneration(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 20, last)
	}
}

func TestALostAnswerOfAPromotionOrAnAbortIsSettled(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(context.Context, driver.Store) error{
		"promoted 8 by me": func(ctx context.Context, s driver.Store) error { return promoteAs(ctx, s, 8, "me", true) },
		"aborted 8 by me":  func(ctx context.Context, s driver.Store) error { return abortAs(ctx, s, 8, "me") },
	} {
		for _, fault := range []memory.Fault{memory.LoseAnswer, memory.LoseRequest, memory.Refuse} {
			for lost := int64(0); ; lost++ {
				var posts int64
				synctest.Test(t, func(t *testing.T) {
					store := memory.New()
					require.NoError(t, promoteAs(t.Context(), store, 5, "op", true))
					handle := store.Open()
					var calls atomic.Int64
					handle.Inject(func(memory.Call) memory.Fault {
						if calls.Add(1) == lost+1 {
							return fault
						}
						return memory.Pass
					})
					require.NoError(t, do(t.Context(), handle), "%v of call %d", fault, lost)
					require.Equal(t, []string{"promoted 5 by op", name}, kept(t, store))
					posts = calls.Load()
				})
				if posts <= lost {
					break
				}
			}
		}
	}
}

func TestAnAbortThatComesTooLateIsTakenBackAlsoIfItsAnswerWasLost(t *testing.T) {
	t.Parallel()
	for n := range 2 { // what the intent says is kept, and the intent
		synctest.Test(t, func(t *testing.T) {
			ctx, store := t.Context(), memory.New()
			require.NoError(t, promoteAs(ctx, store, 6, "op", true))
			handle := store.Open()
			handle.Inject(func(c memory.Call) memory.Fault {
				if c.Method != "Post" || c.N != n {
					return memory.Pass
				}
				assert.NoError(t, claimAs(ctx, store.Open(), 6))
				return memory.LoseAnswer
			})
			var late *leader.TooLateError
			require.ErrorAs(t, abortAs(ctx, handle, 6, "me"), &late)
			intent, err := leader.ReadIntent(ctx, store, catalog.Config{})
			require.NoError(t, err)
			require.EqualValues(t, 6, intent.Generation)
			require.Empty(t, intent.Aborted)
			require.Equal(t, []string{"promoted 6 by op"}, kept(t, store))
		})
	}
}
