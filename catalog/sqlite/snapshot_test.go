package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/step"
)

// publish publishes a snapshot of the log up to head.
func publish(t *testing.T, s *sqlite.Store, head driver.Head, parts ...[]byte) driver.Snapshot {
	t.Helper()
	ctx := drivertest.Context(t)
	snapshot := driver.Snapshot{ID: driver.NewID(), Revision: head.Revision, Commit: head.Commit, Token: head.Claim.Token, Parts: len(parts)}
	for n, part := range parts {
		require.NoError(t, s.Stage(ctx, head.Claim, snapshot.ID, n, part))
	}
	require.NoError(t, s.Publish(ctx, head.Claim, snapshot))
	return snapshot
}

// trim calls Trim until there is no more to delete, and returns how often.
func trim(t *testing.T, s *sqlite.Store, head driver.Head) (calls int) {
	t.Helper()
	for more := true; more; calls++ {
		var err error
		more, err = s.Trim(drivertest.Context(t), head.Claim)
		require.NoError(t, err)
	}
	return calls
}

func fill(t *testing.T, s *sqlite.Store, head driver.Head, n int, payload []byte) driver.Head {
	t.Helper()
	ctx := drivertest.Context(t)
	for range n {
		rec := drivertest.NextRecord(head, payload)
		require.NoError(t, s.Append(ctx, head, rec))
		head = head.After(rec)
	}
	return head
}

// compacted makes a catalog whose records 1 to 5 are deleted, and 6 to 8 there.
func compacted(t *testing.T) (path string, s *sqlite.Store, head driver.Head) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "c.db")
	s = open(t, path)
	head = fill(t, s, drivertest.Install(t, s, 1), 5, nil)
	publish(t, s, head, []byte("zero"), []byte("one"))
	trim(t, s, head)
	return path, s, fill(t, s, head, 2, nil)
}

func readSnapshot(t *testing.T, s driver.Store) (parts [][]byte, err error) {
	t.Helper()
	err = s.Snapshot(drivertest.Context(t), func(_ driver.Snapshot, part []byte) error {
		parts = append(parts, part)
		return nil
	})
	return parts, err
}

func TestARecordThatIsMissingForAnyOtherReasonThanACompactionIsCorruption(t *testing.T) {
	t.Parallel()
	none := func(driver.Record) error { return nil }
	for damage, after := range map[string]uint64{
		"DELETE FROM log WHERE revision = 6": 5, // the snapshot's own
		"DELETE FROM log WHERE revision = 7": 5,
		"DELETE FROM log WHERE revision < 8": 6,
		"UPDATE snapshot SET trimmed = 3":    3,
		"DELETE FROM snapshot":               0,
	} {
		path, s, _ := compacted(t)
		err := s.Log(t.Context(), 0, none)
		require.ErrorIs(t, err, driver.ErrCompacted)
		require.Equal(t, driver.Class{}, class(t, err))
		raw(t, path, damage)
		err = s.Log(t.Context(), after, none)
		require.ErrorIs(t, err, driver.ErrCorrupt, damage)
		require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
	}
	path, s, _ := compacted(t)
	raw(t, path, "DELETE FROM log")
	require.ErrorIs(t, s.Log(t.Context(), 0, none), driver.ErrCompacted, "that it was deleted is written down")
}

func TestADamagedSnapshotIsCorruption(t *testing.T) {
	t.Parallel()
	for _, damage := range []string{
		"DELETE FROM part WHERE n = 0",
		"DELETE FROM part WHERE n = 1",
		"DELETE FROM part",
		"UPDATE part SET n = n + 5",
		"UPDATE snapshot SET revision = 5",
		"UPDATE snapshot SET snapshot = '{}'",
		"UPDATE snapshot SET id = zeroblob(16)",
	} {
		path, s, _ := compacted(t)
		parts, err := readSnapshot(t, s)
		require.NoError(t, err)
		require.Equal(t, [][]byte{[]byte("zero"), []byte("one")}, parts)
		raw(t, path, damage)
		_, err = readSnapshot(t, s)
		require.ErrorIs(t, err, driver.ErrCorrupt, damage)
		require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
	}
}

func TestAMissingHeadBesideASnapshotIsCorruptionAndNotAFirstOpen(t *testing.T) {
	t.Parallel()
	for _, left := range []string{"part", "snapshot"} {
		path, s, head := compacted(t)
		for _, table := range []string{"log", "claim", "part", "snapshot"} {
			if table != left {
				raw(t, path, "DELETE FROM "+table)
			}
		}
		_, err := s.Head(t.Context())
		require.ErrorIs(t, err, driver.ErrCorrupt, left)
		_, err = s.Claim(t.Context())
		require.ErrorIs(t, err, driver.ErrCorrupt, left)
		require.ErrorIs(t, s.Stage(t.Context(), head.Claim, driver.NewID(), 0, nil), driver.ErrCorrupt, left)
	}
}

func TestACompactionOfNoCatalogIsRefused(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "c.db"))
	require.ErrorIs(t, s.Stage(t.Context(), driver.Claim{}, driver.NewID(), 0, nil), driver.ErrConflict)
	_, err := s.Trim(t.Context(), driver.Claim{})
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Empty(t, drivertest.ReadLog(t, s, 0))
}

func TestACallAgainstTheContractIsADefect(t *testing.T) {
	t.Parallel()
	_, s, head := compacted(t)
	for _, err := range []error{
		s.Stage(t.Context(), head.Claim, driver.NewID(), -1, nil),
		s.Publish(t.Context(), head.Claim, driver.Snapshot{}),
	} {
		require.ErrorContains(t, err, "against its contract")
		require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
		require.Equal(t, driver.NotApplied, class(t, err).Outcome)
	}
}

// Commits wait for a Trim.
func TestATrimIsSmallWhateverThereIsToDelete(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ records, payload, parts, calls int }{
		"records":        {records: 2500, calls: 3},
		"large records":  {records: 12, payload: 2 << 20, calls: 6},
		"a huge record":  {records: 3, payload: 9 << 20, calls: 2},
		"parts":          {records: 1, parts: 9, calls: 3},
		"as many as fit": {records: 999, parts: 4, calls: 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, filepath.Join(t.TempDir(), "c.db"))
			head := drivertest.Install(t, s, 1)
			publish(t, s, head, make([][]byte, c.parts)...)
			head = fill(t, s, head, c.records, make([]byte, c.payload))
			publish(t, s, head)
			require.Equal(t, c.calls, trim(t, s, head))
		})
	}
}

func TestACompactionGivesWayToAClaimThatIsOnlyWaiting(t *testing.T) {
	t.Parallel()
	path, s, head := compacted(t)
	claimer, err := os.Open(path + "-claim")
	require.NoError(t, err)
	defer func() { require.NoError(t, claimer.Close()) }()
	require.NoError(t, unix.Flock(int(claimer.Fd()), unix.LOCK_EX))
	for _, call := range compactions(s, head) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		err := call(ctx)
		require.ErrorContains(t, err, "a claim is under way")
		require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
		require.Equal(t, driver.NotApplied, class(t, err).Outcome)
	}
	require.NoError(t, unix.Flock(int(claimer.Fd()), unix.LOCK_UN))
	for _, call := range compactions(s, head) {
		require.NoError(t, call(t.Context()))
	}
}

// compactions returns one call of each step, in order.
func compactions(s *sqlite.Store, head driver.Head) []func(context.Context) error {
	snapshot := driver.Snapshot{ID: driver.NewID(), Revision: head.Revision, Commit: head.Commit, Token: head.Claim.Token, Parts: 1}
	return []func(context.Context) error{
		func(ctx context.Context) error { return s.Stage(ctx, head.Claim, snapshot.ID, 0, []byte("part")) },
		func(ctx context.Context) error { return s.Publish(ctx, head.Claim, snapshot) },
		func(ctx context.Context) error { _, err := s.Trim(ctx, head.Claim); return err },
	}
}

func TestACompactionPassesItsPointsOnceItHasLanded(t *testing.T) {
	t.Parallel()
	_, s, head := compacted(t)
	var passed []step.Point
	ctx := step.With(t.Context(), func(p step.Point) { passed = append(passed, p) })
	for _, call := range compactions(s, head) {
		require.NoError(t, call(ctx))
	}
	require.Equal(t, []step.Point{step.SnapshotStaged, step.SnapshotPublished, step.SnapshotTrimmed}, passed)
	drivertest.Install(t, s, 2)
	for _, call := range compactions(s, head) {
		require.ErrorIs(t, call(ctx), driver.ErrConflict)
	}
	require.Len(t, passed, 3)
}

// What is deleted makes room for what comes, and the WAL is begun again.
func TestACompactedFileDoesNotGrow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(t, path)
	head := drivertest.Install(t, s, 1)
	part := make([]byte, driver.MaxPart)
	var sizes []int64
	for range 6 {
		head = fill(t, s, head, 200, make([]byte, 10<<10))
		publish(t, s, head, part, part, part, part, part, part, part, part)
		trim(t, s, head)
		for name, limit := range map[string]int64{path: 32 << 20, path + "-wal": 16 << 20} {
			info, err := os.Stat(name)
			require.NoError(t, err)
			require.Less(t, info.Size(), limit, name)
			if name == path {
				sizes = append(sizes, info.Size())
			}
		}
	}
	require.LessOrEqual(t, sizes[5], sizes[2]+driver.MaxPart, "%v", sizes)
}
