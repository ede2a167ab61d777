package sqlite

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/step"
)

func TestCloseMovesTheWALIfAnErrorHasEndedTheWritingConnection(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	s, err := Open(path, Config{})
	require.NoError(t, err)
	head := drivertest.Append(t, s, drivertest.Install(t, s, 1), nil)
	w, err := s.acquire(t.Context())
	require.NoError(t, err)
	s.release(w, true)
	wal, err := os.Stat(path + "-wal")
	require.NoError(t, err, "the WAL of a writer that broke is kept")
	require.NotZero(t, wal.Size())
	require.NoError(t, s.Close())
	wal, err = os.Stat(path + "-wal")
	require.NoError(t, err)
	require.Zero(t, wal.Size())
	s, err = Open(path, Config{})
	require.NoError(t, err)
	drivertest.SameHead(t, head, drivertest.ReadHead(t, s))
	require.NoError(t, s.Close())
}

// TestAFileIsNotIncompleteWhileOrAfterItsFirstClaimFails breaks the writing
// connection at each point of the first claim.
func TestAFileIsNotIncompleteWhileOrAfterItsFirstClaimFails(t *testing.T) {
	t.Parallel()
	for _, announced := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "c.db")
		s, err := Open(path, Config{})
		require.NoError(t, err)
		c, err := s.Claim(t.Context())
		require.NoError(t, err)
		begun, ok := c.(*claiming)
		require.True(t, ok)
		if announced {
			require.NoError(t, begun.announce(t.Context()))
		}
		require.True(t, drivertest.ReadHead(t, s).IsZero(), "while the claim is under way")
		begun.end(true)
		require.True(t, drivertest.ReadHead(t, s).IsZero(), "after it has failed")
		require.NoError(t, s.Close())

		s, err = Open(path, Config{})
		require.NoError(t, err)
		require.True(t, drivertest.ReadHead(t, s).IsZero(), "after a clean end")
		head := drivertest.Install(t, s, 1)
		drivertest.SameHead(t, head, drivertest.ReadHead(t, s))
		require.NoError(t, s.Close())
	}
}

// TestAWriterThatIsClosedBesideAFirstClaimLeavesTheWALToIt closes another writer
// at each point at which the claim has no transaction under way.
func TestAWriterThatIsClosedBesideAFirstClaimLeavesTheWALToIt(t *testing.T) {
	t.Parallel()
	for _, point := range []step.Point{step.FileAnnounced, step.FileMarked} {
		path := filepath.Join(t.TempDir(), "c.db")
		s, err := Open(path, Config{})
		require.NoError(t, err)
		c, err := s.Claim(t.Context())
		require.NoError(t, err)
		begun, ok := c.(*claiming)
		require.True(t, ok)
		other, err := Open(path, Config{})
		require.NoError(t, err)
		require.NoError(t, other.Warm(t.Context()))
		require.NoError(t, begun.announce(step.With(t.Context(), func(p step.Point) {
			if p == point {
				require.NoError(t, other.Close())
			}
		})))
		holds, err := walHolds(path)
		require.NoError(t, err)
		require.True(t, holds, point)
		claimed, said, err := standing(t.Context(), begun.w.conn)
		require.NoError(t, err)
		require.False(t, claimed || said, point)
		begun.Abandon()
		require.NoError(t, s.Close())
	}
}
