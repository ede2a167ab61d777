package sqlite

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Of two processes that use a new catalog at once, one may see no file, and then the
// WAL of the file that the other has made.
func TestADatabaseThatIsMadeWhileItIsLookedForIsNotCorrupt(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	require.NoError(t, os.WriteFile(path+"-wal", []byte("a commit"), 0o600))
	require.ErrorIs(t, checkAbsent(path), driver.ErrCorrupt, "the file is gone")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.ErrorIs(t, checkAbsent(path), driver.ErrCorrupt, "its content is gone")
	require.NoError(t, os.WriteFile(path, []byte("a catalog"), 0o600))
	require.ErrorIs(t, checkAbsent(path), errAppeared)
	absent, err := isAbsent(path)
	require.NoError(t, err)
	require.False(t, absent)

	for range 20 {
		path := filepath.Join(t.TempDir(), "c.db")
		var using sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			using.Go(func() { errs[i] = firstUse(t, path) })
		}
		using.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
	}
}

// firstUse posts a note and reads the head, as a process that is started.
func firstUse(t *testing.T, path string) error {
	s, err := Open(path, Config{})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Head(t.Context()); err != nil {
		return err
	}
	_, err = s.Post(t.Context(), driver.Note{Key: driver.NewID().String(), Value: []byte("v")})
	return err
}
