package sqlite

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
)

// TestAConnectionIsNotUsedBehindAWriteOfUnknownOutcome breaks the statement that
// ends a write. What a connection shows then may not be on the disk.
func TestAConnectionIsNotUsedBehindAWriteOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	s := openStore(t, filepath.Join(t.TempDir(), "c.db"))
	head := drivertest.Append(t, s, drivertest.Install(t, s, 1), nil)
	rec := driver.Record{Revision: head.Revision + 1, ID: driver.NewID(), Token: head.Claim.Token}
	note := driver.Note{Key: "k", Value: []byte("v")}
	for _, c := range []struct {
		name   string
		breaks func(*writer) error
		write  func() error
	}{
		{"a commit", func(w *writer) error { return w.addLog.Close() }, func() error { return s.Append(drivertest.Context(t), head, rec) }},
		{"a note", func(w *writer) error { return w.commitTx.Close() }, func() error { _, err := s.Post(drivertest.Context(t), note); return err }},
	} {
		w, err := s.acquire(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.breaks(w), c.name)
		s.release(w, false)
		require.Equal(t, driver.Unknown, driver.OutcomeOf(c.write()), c.name)
		require.NoError(t, c.write(), "%s: over a new connection", c.name)
	}
}

// TestWhatAnEarlierProcessLeftInTheWALIsInTheFileBeforeAnythingIsWritten opens the
// files of a holder that goes on, as if it had died.
func TestWhatAnEarlierProcessLeftInTheWALIsInTheFileBeforeAnythingIsWritten(t *testing.T) {
	t.Parallel()
	died, path := filepath.Join(t.TempDir(), "c.db"), filepath.Join(t.TempDir(), "c.db")
	s := openStore(t, died)
	head := drivertest.Append(t, s, drivertest.Install(t, s, 1), []byte("in the WAL alone"))
	for _, ending := range []string{"", "-wal"} {
		text, err := os.ReadFile(died + ending) //nolint:gosec // a test's own file
		require.NoError(t, err)
		require.Equal(t, ending != "", strings.Contains(string(text), "in the WAL alone"), ending)
		require.NoError(t, os.WriteFile(path+ending, text, 0o600))
	}
	next := openStore(t, path)
	w, err := next.acquire(t.Context())
	require.NoError(t, err)
	next.release(w, false)
	text, err := os.ReadFile(path) //nolint:gosec // a test's own file
	require.NoError(t, err)
	require.Contains(t, string(text), "in the WAL alone")
	drivertest.SameHead(t, head, drivertest.ReadHead(t, next))
}

// TestCloseWritesNothingToAFileThatWasMoved is about a database that an operator has
// put aside.
func TestCloseWritesNothingToAFileThatWasMoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, aside := filepath.Join(dir, "c.db"), filepath.Join(dir, "aside")
	var said strings.Builder
	s, err := Open(path, Config{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	require.NoError(t, err)
	drivertest.Append(t, s, drivertest.Install(t, s, 1), nil)
	require.NoError(t, os.Rename(path, aside))
	before, err := os.ReadFile(aside) //nolint:gosec // a test's own file
	require.NoError(t, err)
	require.NoError(t, s.Close())
	after, err := os.ReadFile(aside) //nolint:gosec // a test's own file
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Contains(t, said.String(), "may lack commits")
}

// TestWhoeverMadeTheFileHasLetGoOfTheLockOnClaims is about the first write of a
// process, which makes the file and then may do nothing more.
func TestWhoeverMadeTheFileHasLetGoOfTheLockOnClaims(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	s := openStore(t, path)
	w, err := s.acquire(t.Context())
	require.NoError(t, err)
	defer s.release(w, false)
	claim, err := os.Open(path + "-claim") //nolint:gosec // a test's own file
	require.NoError(t, err)
	defer func() { _ = claim.Close() }()
	require.NoError(t, flock(claim, unix.LOCK_EX))
}

// TestSQLiteItselfWaitsForNoLock: it would look neither at a claim that wants one nor
// at the time of the call.
func TestSQLiteItselfWaitsForNoLock(t *testing.T) {
	t.Parallel()
	s := openStore(t, filepath.Join(t.TempDir(), "c.db"))
	w, err := s.acquire(t.Context())
	require.NoError(t, err)
	defer s.release(w, false)
	var wait int
	require.NoError(t, w.conn.QueryRowContext(t.Context(), "PRAGMA busy_timeout").Scan(&wait))
	require.Zero(t, wait)
}
