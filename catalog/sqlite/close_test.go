package sqlite_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/drivertest"
)

func TestAClosedStoreKeepsNoFileOpen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "c.db"))
	head := drivertest.Install(t, s, 1)
	require.NoError(t, s.Append(t.Context(), head, drivertest.NextRecord(head, nil)))
	drivertest.ReadHead(t, s)
	require.NoError(t, s.Close())
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		// The descriptor of the listing itself has gone by now.
		if path, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			require.NotEqual(t, dir, filepath.Dir(path), "%s is open", path)
		}
	}
}
