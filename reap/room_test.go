package reap_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/reap"
)

// full returns a create that finds room only for so many items.
func (s *shelf) full(limit int, tries *int) func(context.Context) error {
	return func(context.Context) error {
		*tries++
		if len(s.items) >= limit {
			return fmt.Errorf("quota: %w", reap.ErrFull)
		}
		return nil
	}
}

func TestCreateListsNothingAsLongAsThereIsRoom(t *testing.T) {
	t.Parallel()
	s, tries := stale("a"), 0
	reports, err := reap.Create(t.Context(), s.source(), token(8), reap.Policy{}, s.full(2, &tries))
	require.NoError(t, err)
	require.Empty(t, reports)
	require.Zero(t, s.lists)
}

func TestCreateMakesRoomOnlyIfThereIsNone(t *testing.T) {
	t.Parallel()
	s, tries := stale("a", "b"), 0
	reports, err := reap.Create(t.Context(), s.source(), token(8), reap.Policy{}, s.full(2, &tries))
	require.NoError(t, err)
	require.Len(t, reports, 1)
	require.Equal(t, 2, tries)
}

func TestCreateWaitsUntilTheOldestItemIsOldEnoughAndTriesThreeTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, tries := &shelf{}, 0
		began := time.Now()
		for n := range 2 {
			s.items = append(s.items, reap.Item{ID: fmt.Sprint(n), Made: token(1), At: began.Add(time.Duration(n-4) * time.Minute)})
		}
		var waits []reap.Wait
		p := reap.Policy{OnWait: func(w reap.Wait) { waits = append(waits, w) }}
		reports, err := reap.Create(t.Context(), s.source(), token(8), p, s.full(2, &tries))
		require.NoError(t, err)
		require.Equal(t, 6*time.Minute, time.Since(began))
		require.Equal(t, []reap.WaitReason{reap.WaitRoom}, []reap.WaitReason{waits[0].Reason})
		require.Len(t, reports, 2)
		require.Equal(t, 3, tries)

		s.put("mine", 8)
		tries = 0
		_, err = reap.Create(t.Context(), s.source(), token(8), p, s.full(0, &tries))
		require.ErrorIs(t, err, reap.ErrFull)
		require.Equal(t, 3, tries)
	})
}

func TestCreateReturnsWhatElseIsWrong(t *testing.T) {
	t.Parallel()
	s, tries := stale("a"), 0
	boom := errors.New("boom")
	_, err := reap.Create(t.Context(), s.source(), token(8), reap.Policy{}, func(context.Context) error { return boom })
	require.ErrorIs(t, err, boom)
	require.Zero(t, s.lists)
	s.items[0].At = time.Now()
	_, err = reap.Create(t.Context(), s.source(), token(8), reap.Policy{MaxWait: time.Minute}, s.full(1, &tries))
	require.ErrorIs(t, err, reap.ErrFull)
	require.ErrorContains(t, err, "MaxWait is 1m0s")
	_, err = reap.Create(t.Context(), s.source(), token(8), reap.Policy{OnConflict: 9}, s.full(1, &tries))
	require.ErrorIs(t, err, reap.ErrPolicy)
}
