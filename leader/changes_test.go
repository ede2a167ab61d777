package leader_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

func TestHistoryHasWhoWhenAndWhyForEachPromotionAndAbort(t *testing.T) {
	t.Parallel()
	ctx, store := t.Context(), memory.New()
	_, err := leader.Promote(ctx, store, catalog.Config{}, 2, leader.PromoteOptions{By: "alice", Reason: "release 2", Force: true})
	require.NoError(t, err)
	_, err = leader.Abort(ctx, store, catalog.Config{}, 300, leader.AbortOptions{By: "bob", Reason: "a slip"})
	require.NoError(t, err)
	intent, err := leader.ReadIntent(ctx, store, catalog.Config{})
	require.NoError(t, err)
	require.Equal(t, "release 2", intent.Reason(), "behind an abort of another one")
	_, err = leader.Abort(ctx, store, catalog.Config{}, 2, leader.AbortOptions{By: "carol", Reason: "smoke test"})
	require.NoError(t, err)
	_, err = leader.Promote(ctx, store, catalog.Config{}, 3, leader.PromoteOptions{By: "dora", Reason: "again"})
	require.NoError(t, err)
	_, err = leader.Promote(ctx, store, catalog.Config{}, 4, leader.PromoteOptions{By: "erin"})
	require.NoError(t, err)
	changes, err := leader.Changes(ctx, store, catalog.Config{})
	require.NoError(t, err)
	require.Len(t, changes, 5)
	for i, want := range []leader.Change{
		{Kind: leader.Promoted, Generation: 2, By: "alice", Reason: "release 2"}, {Kind: leader.Aborted, Generation: 300, By: "bob", Reason: "a slip"},
		{Kind: leader.Aborted, Generation: 2, By: "carol", Reason: "smoke test"}, {Kind: leader.Promoted, Generation: 3, By: "dora", Reason: "again"},
		{Kind: leader.Promoted, Generation: 4, By: "erin"},
	} {
		got := changes[i]
		require.False(t, got.At.IsZero())
		want.At, want.ID = got.At, got.ID
		require.Equal(t, want, got)
	}
	_, err = leader.Promote(ctx, store, catalog.Config{}, 2, leader.PromoteOptions{By: "mallory"})
	require.ErrorContains(t, err, "by carol (smoke test)")
	require.Equal(t, changes, must(leader.Changes(ctx, store, catalog.Config{})))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestHistoryKeepsTheNewest200ChangesBehindTheOneThatStands(t *testing.T) {
	t.Parallel()
	store := memory.New()
	for g := generation.Generation(1); g <= 205; g++ {
		require.NoError(t, promoteAs(t.Context(), store, g, "op", true))
	}
	all := kept(t, store)
	require.Len(t, all, 201)
	require.Equal(t, "promoted 5 by op", all[0])
	require.Equal(t, "promoted 205 by op", all[200])
}

// raw returns the text of a note, and its version.
func raw(t *testing.T, s driver.Store, key string) driver.Note {
	t.Helper()
	for _, n := range notes(t, s) {
		if n.Key == key {
			return n
		}
	}
	return driver.Note{Key: key}
}

// The text of a build of before promotions had reasons, which keeps the fields that
// it does not know.
func TestWhatAnOlderBuildHasWrittenIsReadAndKeptInTheHistory(t *testing.T) {
	t.Parallel()
	ctx, store := t.Context(), memory.New()
	write := func(g generation.Generation, at, by string, aborted ...generation.Generation) {
		n := raw(t, store, "promote")
		fields := map[string]any{}
		if n.Version > 0 {
			require.NoError(t, json.Unmarshal(n.Value, &fields))
		}
		fields["generation"], fields["at"], fields["by"], fields["aborted"] = g, at, by, aborted
		text, err := json.Marshal(fields)
		require.NoError(t, err)
		_, err = store.Post(ctx, driver.Note{Key: "promote", Value: text, Version: n.Version})
		require.NoError(t, err)
	}
	write(2, "2026-01-01T00:00:00Z", "old")
	require.Equal(t, []string{"promoted 2 by old"}, kept(t, store))
	_, err := leader.Promote(ctx, store, catalog.Config{}, 3, leader.PromoteOptions{By: "new", Reason: "why", Force: true})
	require.NoError(t, err)
	write(4, "2026-12-31T00:00:00Z", "old", 9)
	intent := must(leader.ReadIntent(ctx, store, catalog.Config{}))
	require.Empty(t, intent.Reason(), "the reason of another promotion")
	var aborted *leader.AbortedError
	require.ErrorAs(t, intent.Refuses(9), &aborted)
	require.NotContains(t, aborted.Error(), " by ", "nobody knows")
	require.Equal(t, []string{"promoted 2 by old", "promoted 3 by new", "promoted 4 by old"}, kept(t, store))
	require.NoError(t, abortAs(ctx, store, 4, "new"))
	require.Equal(t, []string{"promoted 2 by old", "promoted 3 by new", "promoted 4 by old", "aborted 4 by new"}, kept(t, store))

	var old struct {
		Generation generation.Generation   `json:"generation"`
		By         string                  `json:"by"`
		Aborted    []generation.Generation `json:"aborted"`
	}
	require.NoError(t, json.Unmarshal(raw(t, store, "promote").Value, &old), "as an older build reads it")
	require.Equal(t, fmt.Sprint(generation.None, "new", []generation.Generation{9, 4}), fmt.Sprint(old.Generation, old.By, old.Aborted))
}

func TestAReapedIntentStaysInTheHistory(t *testing.T) {
	t.Parallel()
	ctx, store := t.Context(), memory.New()
	require.NoError(t, promoteAs(ctx, store, 2, "op", true))
	require.NoError(t, abortAs(ctx, store, 2, "me"))
	board := catalog.NewBoard(store, catalog.Config{})
	left := must(leader.LeftIntent(ctx, board))
	require.True(t, must(leader.RemoveIntent(ctx, board, left[0])))
	require.Zero(t, raw(t, store, "promote").Version)
	require.Equal(t, []string{"promoted 2 by op", "aborted 2 by me"}, kept(t, store))
	require.NoError(t, promoteAs(ctx, store, 3, "op", true))
	_, err := leader.RemoveIntent(ctx, board, left[0])
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Equal(t, []string{"promoted 2 by op", "aborted 2 by me", "promoted 3 by op"}, kept(t, store))
}
