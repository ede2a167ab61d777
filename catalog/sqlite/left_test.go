package sqlite

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

// random is a name of 26 characters, as crypto/rand.Text returns.
const random = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

func TestAFileThatNeverGotItsNameIsListedAndRemovedOnceItsProcessMustBeDead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "c.db"), Config{})
	require.NoError(t, err)
	defer s.Close()
	old, fresh := ".c.db-claim-"+random, ".c.db-presence-"+random
	foreign := []string{
		"c.db", "c.db-claim", "c.db-presence", ".c.db-claim-short", ".c.db-claim-" + random + "A", ".c.db-other-" + random,
		".other.db-claim-" + random, "c.db-claim-" + random, ".c.db-claim-abcdefghijklmnopqrstuvwxyz",
	}
	longAgo := time.Now().Add(-2 * driver.LeftLife)
	for _, name := range append(foreign, old, fresh) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
		if name != fresh {
			require.NoError(t, os.Chtimes(filepath.Join(dir, name), longAgo, longAgo))
		}
	}
	link := filepath.Join(dir, ".c.db-claim-"+"B"+random[1:])
	require.NoError(t, os.Symlink("c.db", link))

	left, err := s.Left(t.Context())
	require.NoError(t, err)
	require.Len(t, left, 2)
	require.Equal(t, []string{old, fresh}, []string{left[0].Name, left[1].Name}, "oldest first")
	require.WithinDuration(t, longAgo, left[0].Made, time.Second)

	removed, err := s.RemoveLeft(t.Context(), left[1])
	require.ErrorIs(t, err, errMisuse)
	require.False(t, removed)
	for _, want := range []bool{true, false} {
		removed, err = s.RemoveLeft(t.Context(), left[0])
		require.NoError(t, err)
		require.Equal(t, want, removed)
	}
	for _, name := range append(foreign, "../c.db", "") {
		removed, err = s.RemoveLeft(t.Context(), driver.Leftover{Kind: driver.UnfinishedFile, Name: name, Made: longAgo})
		require.NoError(t, err)
		require.False(t, removed, name)
	}
	for _, name := range append(foreign, fresh) {
		require.FileExists(t, filepath.Join(dir, name))
	}
}

func TestAPlaceOfADeadProcessIsRemovedWithAllItsFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "c.db"), Config{})
	require.NoError(t, err)
	defer s.Close()
	const place = "c.db-check-5f000000-0123456789abcdef"
	for _, name := range []string{place, place + "-wal", place + "-locks", "." + place + "-claim-" + random} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	left, err := s.Left(t.Context())
	require.NoError(t, err)
	require.Len(t, left, 1, "of several files one place")
	for _, want := range []bool{true, false} {
		removed, err := s.RemoveLeft(t.Context(), left[0])
		require.NoError(t, err)
		require.Equal(t, want, removed)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestNothingIsLeftInAFolderThatIsNotThere(t *testing.T) {
	t.Parallel()
	s, err := Open(filepath.Join(t.TempDir(), "absent", "c.db"), Config{})
	require.NoError(t, err)
	defer s.Close()
	left, err := s.Left(t.Context())
	require.NoError(t, err)
	require.Empty(t, left)
}
