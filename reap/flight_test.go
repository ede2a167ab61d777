package reap_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/reap"
)

// answer returns a call with this result, which counts itself.
func answer(calls *int32, result string, err error) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		atomic.AddInt32(calls, 1)
		return []byte(result), err
	}
}

func TestAFailedCallIsSharedByThoseThatAskedBefore(t *testing.T) {
	t.Parallel()
	f := reap.Flight{Dir: t.TempDir(), Name: "call"}
	held, err := reap.HostLock{Path: filepath.Join(f.Dir, "call.lock")}.TryLock()
	require.NoError(t, err)
	var calls int32
	leader, waiter := make(chan error), make(chan error)
	waiting := make(chan struct{}, 2)
	f.OnWait = func(reap.Wait) { waiting <- struct{}{} }
	failing := answer(&calls, "", errors.New("503 "+strings.Repeat("x", 10_000)))
	for _, got := range []chan error{leader, waiter} {
		go func() {
			_, err := f.Do(t.Context(), failing)
			got <- err
		}()
	}
	<-waiting
	<-waiting
	require.NoError(t, held.Unlock())
	one, other := <-leader, <-waiter
	if errors.Is(one, reap.ErrShared) {
		one, other = other, one
	}
	require.EqualValues(t, 1, calls)
	require.NotErrorIs(t, one, reap.ErrShared)
	require.ErrorIs(t, other, reap.ErrShared)
	require.ErrorContains(t, other, "503")
	require.Less(t, len(other.Error()), 1000)

	f.MaxAge, f.OnWait = time.Hour, nil
	result, err := f.Do(t.Context(), answer(&calls, "now it works", nil))
	require.NoError(t, err, "a failure has no age")
	require.Equal(t, "now it works", string(result))
	result, err = f.Do(t.Context(), answer(&calls, "again", nil))
	require.NoError(t, err)
	require.Equal(t, "now it works", string(result))
	require.EqualValues(t, 2, calls)
}

func TestACallWhoseContextEndsIsMadeAnewByAnother(t *testing.T) {
	t.Parallel()
	f := reap.Flight{Dir: t.TempDir(), Name: "call"}
	held, err := reap.HostLock{Path: filepath.Join(f.Dir, "call.lock")}.TryLock()
	require.NoError(t, err)
	waiting, got := make(chan struct{}, 2), make(chan error, 2)
	f.OnWait = func(reap.Wait) { waiting <- struct{}{} }
	var calls atomic.Int32
	for range 2 {
		go func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := f.Do(ctx, func(ctx context.Context) ([]byte, error) {
				if calls.Add(1) == 1 {
					cancel()
				}
				return nil, ctx.Err()
			})
			got <- err
		}()
	}
	<-waiting
	<-waiting // both have asked before the first call begins
	require.NoError(t, held.Unlock())
	one, other := <-got, <-got
	if one == nil {
		one, other = other, one
	}
	require.ErrorIs(t, one, context.Canceled)
	require.NoError(t, other)
	require.EqualValues(t, 2, calls.Load())
}

func TestACallThatPanicsReleasesTheFlight(t *testing.T) {
	t.Parallel()
	f := reap.Flight{Dir: t.TempDir(), Name: "call"}
	require.Panics(t, func() { _, _ = f.Do(t.Context(), func(context.Context) ([]byte, error) { panic("boom") }) })
	var calls int32
	_, err := f.Do(t.Context(), answer(&calls, "", nil))
	require.NoError(t, err)
	require.EqualValues(t, 1, calls)
}

func TestAResultIsBoundedAndWrittenAsAWhole(t *testing.T) {
	t.Parallel()
	f := reap.Flight{Dir: t.TempDir(), Name: "call", MaxBytes: 10, MaxAge: time.Hour}
	var calls int32
	_, err := f.Do(t.Context(), answer(&calls, "12345678901", nil))
	require.ErrorIs(t, err, reap.ErrTooLarge)
	result, err := f.Do(t.Context(), answer(&calls, "1234567890", nil))
	require.NoError(t, err)
	require.Equal(t, "1234567890", string(result))
	f.MaxBytes = 9
	_, err = f.Do(t.Context(), answer(&calls, "12345678901", nil))
	require.ErrorIs(t, err, reap.ErrTooLarge, "the file's is too large too")
	require.EqualValues(t, 3, calls)
	left, err := os.ReadDir(f.Dir)
	require.NoError(t, err)
	require.Len(t, left, 2, "the lock and the result")
}

func TestAFileThatIsNoResultIsNotBelieved(t *testing.T) {
	t.Parallel()
	f := reap.Flight{Dir: t.TempDir(), Name: "call", MaxAge: time.Hour}
	path := filepath.Join(f.Dir, "call.result")
	var calls int32
	_, err := f.Do(t.Context(), answer(&calls, "good", nil))
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, bad := range map[string]string{
		"torn": string(text[:len(text)/2]), "empty": "", "of another format": strings.Replace(string(text), "flight 1", "flight 2", 1),
		"of another boot": strings.Replace(string(text), `"clock":"`, `"clock":"0`, 1),
		"of the future":   strings.Replace(string(text), `"began":`, `"began":9`, 1),
	} {
		calls = 0
		require.NoError(t, os.WriteFile(path, []byte(bad), 0o600))
		result, err := f.Do(t.Context(), answer(&calls, "anew", nil))
		require.NoError(t, err)
		require.Equal(t, "anew", string(result), name)
		require.EqualValues(t, 1, calls, name)
	}
	planted := filepath.Join(t.TempDir(), "planted")
	require.NoError(t, os.WriteFile(planted, text, 0o600))
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink(planted, path))
	result, err := f.Do(t.Context(), answer(&calls, "anew", nil))
	require.ErrorIs(t, err, reap.ErrUnshared)
	require.Equal(t, "anew", string(result), "it is valid all the same")
	after, err := os.ReadFile(planted)
	require.NoError(t, err)
	require.Equal(t, text, after)
}

func TestAFlightWithoutAPlaceOrNameIsRefusedAsConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, f := range []reap.Flight{
		{Name: "call"}, {Dir: dir}, {Dir: dir, Name: "../call"}, {Dir: dir, Name: ".call"}, {Dir: dir, Name: "a/b"},
		{Dir: dir, Name: strings.Repeat("x", 101)}, {Dir: dir, Name: "call", MaxAge: -1}, {Dir: dir, Name: "call", MaxBytes: -1},
		{Dir: filepath.Join(dir, "none"), Name: "call"},
	} {
		_, err := f.Do(t.Context(), nil)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), "%+v", f)
	}
}

func TestAProcessThatDiesWhileItSharesAResultLeavesOneFileAtMost(t *testing.T) {
	t.Parallel()
	f := reap.Flight{Dir: t.TempDir(), Name: "call"}
	require.NoError(t, os.WriteFile(filepath.Join(f.Dir, "call.new"), []byte("half a res"), 0o400))
	for range 3 {
		var calls int32
		got, err := f.Do(t.Context(), answer(&calls, "good", nil))
		require.NoError(t, err)
		require.Equal(t, "good", string(got))
	}
	names, err := filepath.Glob(filepath.Join(f.Dir, "*"))
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(f.Dir, "call.lock"), filepath.Join(f.Dir, "call.result")}, names)
}
