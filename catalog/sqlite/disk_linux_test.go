package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

func TestAProbeKnowsFileSystemsThatKeepNothingAndThoseWhoseLocksLie(t *testing.T) {
	const gib = 1 << 30
	for _, row := range []struct {
		kind  uint32
		free  uint64
		grade driver.Grade
	}{
		{unix.EXT4_SUPER_MAGIC, gib, driver.Fine},
		{unix.XFS_SUPER_MAGIC, 1 << 20, driver.Warning}, // nearly full
		{unix.TMPFS_MAGIC, gib, driver.Warning},
		{unix.NFS_SUPER_MAGIC, gib, driver.Failure},
		{smb2Magic, 0, driver.Failure},
	} {
		f := judgeDisk(driver.Finding{Name: "file system"}, row.kind, row.free)
		require.Equal(t, row.grade, f.Grade, "%#x", row.kind)
		require.NotEmpty(t, f.Detail)
		require.Equal(t, row.grade != driver.Fine, f.Remedy != "")
	}
}

func TestAFileOnANetworkFileSystemIsRefused(t *testing.T) {
	for _, kind := range []uint32{unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, cifsMagic, smb2Magic, unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC, unix.AFS_SUPER_MAGIC} {
		err := checkKind(kind)
		require.ErrorIs(t, err, errNetwork)
		require.Equal(t, exitcodes.Config, classify(err, false).Code)
	}
	require.NoError(t, checkKind(unix.EXT4_SUPER_MAGIC))
	require.NoError(t, checkKind(unix.TMPFS_MAGIC))
	require.NoError(t, checkDisk(t.TempDir()))
}

func TestAFileInMemoryIsARiskAndOneOnADiskIsNot(t *testing.T) {
	for folder, want := range map[string]int{"/dev/shm": 1, "/var/tmp": 0} {
		dir, err := os.MkdirTemp(folder, "fencepost-")
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
		s, err := Open(filepath.Join(dir, "c.db"), Config{})
		require.NoError(t, err)
		risks, err := s.Risks(t.Context())
		require.NoError(t, errors.Join(err, s.Close()))
		require.Len(t, risks, want, folder)
	}
}
