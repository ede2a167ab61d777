package reap_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
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

func TestProcessesOfAHostThatFindNoRoomAllWaitUntilTheOldestItemIsOldEnough(t *testing.T) {
	t.Parallel()
	const minAge = time.Hour
	s, path, waits := stale(), filepath.Join(t.TempDir(), "lock"), make(chan reap.Wait)
	s.items = append(s.items, reap.Item{ID: "young", Made: token(1), At: time.Now()})
	held, err := reap.HostLock{Path: path}.TryLock()
	require.NoError(t, err)
	var ended sync.WaitGroup
	waiting := make(chan struct{}, 9)
	for range 3 {
		ended.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := reap.Create(ctx, s.source(), token(8), reap.Policy{Lock: path, MinAge: minAge, MaxWait: 2 * minAge, OnWait: func(w reap.Wait) {
				if w.Reason == reap.WaitLocked {
					waiting <- struct{}{}
					return
				}
				waits <- w
				cancel()
			}}, func(context.Context) error { return reap.ErrFull })
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for range 3 {
		<-waiting
	}
	require.NoError(t, held.Unlock())
	for range 3 {
		w := <-waits
		require.Equal(t, reap.WaitRoom, w.Reason)
		require.Greater(t, w.For, minAge/2)
	}
	ended.Wait()
	require.Equal(t, 1, s.lists, "one of them has looked")
	r, err := reap.Pass(t.Context(), s.source(), token(8), reap.Policy{Lock: path, Every: minAge, MinAge: minAge + time.Minute})
	require.NoError(t, err)
	require.Equal(t, reap.StoppedShared, r.Stopped)
	require.True(t, s.items[0].At.Add(minAge+time.Minute).Equal(r.Ripe), "by its own MinAge")
}
