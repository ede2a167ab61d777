package sqlite

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMappedMemoryThatTheFileSystemCantTakeIsAnErrorAndNotTheEndOfTheProcess(t *testing.T) {
	t.Parallel()
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer f.Close()
	size := os.Getpagesize()
	require.NoError(t, f.Truncate(int64(size)))
	mapped, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Munmap(mapped)) }()
	require.NoError(t, touch(mapped))
	require.NoError(t, f.Truncate(0)) // the same signal as of a disk without room
	require.ErrorIs(t, touch(mapped), unix.EIO)
}
