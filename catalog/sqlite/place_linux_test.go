package sqlite

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestTheKernelAndTheTableOfMountsAgreeOnWhatIsMounted(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), `a name with \ and	tab`)
	require.NoError(t, os.Mkdir(dir, 0o755))
	file, other := filepath.Join(dir, "c.db"), filepath.Join(dir, "other.db")
	for _, name := range []string{file, other} {
		require.NoError(t, os.WriteFile(name, nil, 0o644))
	}
	agree := func(name string, want bool) {
		is, err := isMount(name)
		require.NoError(t, err)
		require.Equal(t, want, is, name)
		table, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		require.Equal(t, want, hasMountPoint(table, name), name)
	}
	agree(file, false)
	require.NoError(t, unix.Mount(other, file, "", unix.MS_BIND, ""), "this test mounts: run it as root")
	agree(file, true)
	agree(other, false)
	require.NoError(t, unix.Unmount(file, unix.MNT_DETACH))
	agree(file, false)
}
