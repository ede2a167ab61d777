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
	t.Parallel()
	const gib = 1 << 30
	for _, row := range []struct {
		kind   uint32
		free   uint64
		trusts bool
		grade  driver.Grade
	}{
		{kind: unix.EXT4_SUPER_MAGIC, free: gib, grade: driver.Fine},
		{kind: unix.XFS_SUPER_MAGIC, free: 1 << 20, grade: driver.Warning}, // nearly full
		{kind: unix.TMPFS_MAGIC, free: gib, grade: driver.Warning},
		{kind: unix.NFS_SUPER_MAGIC, free: gib, grade: driver.Failure},
		{kind: unix.SMB2_SUPER_MAGIC, grade: driver.Failure},
		{kind: unix.FUSE_SUPER_MAGIC, free: gib, grade: driver.Failure},
		{kind: unix.FUSE_SUPER_MAGIC, free: gib, trusts: true, grade: driver.Warning},
		{kind: 0x12345678, free: gib, grade: driver.Failure},
		{kind: 0x12345678, free: gib, trusts: true, grade: driver.Warning},
		{kind: unix.EXT4_SUPER_MAGIC, free: gib, trusts: true, grade: driver.Fine},
	} {
		f := byNumber(row.kind, row.free).judge(row.trusts)
		require.Equal(t, row.grade, f.Grade, "%#x", row.kind)
		require.NotEmpty(t, f.Detail)
		require.Equal(t, row.grade != driver.Fine, f.Remedy != "")
	}
}

func TestAFileSystemThatIsNotKnownToLockIsRefused(t *testing.T) {
	t.Parallel()
	for _, kind := range []uint32{
		unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC,
		unix.AFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.OCFS2_SUPER_MAGIC, gfs2Magic, lustreMagic, vboxMagic,
		unix.ECRYPTFS_SUPER_MAGIC, unix.PROC_SUPER_MAGIC, 0, 1, 0x12345678, // in no list
	} {
		err := byNumber(kind, 1<<30).check(false)
		require.ErrorIs(t, err, errFileSystem, "%#x", kind)
		require.Equal(t, exitcodes.Config, classify(err, false).Code)
		require.Contains(t, classify(err, false).Remedy, "filesystem=trusted")
		require.NoError(t, byNumber(kind, 1<<30).check(true), "who knows better says so")
	}
	for _, kind := range []uint32{
		unix.EXT2_SUPER_MAGIC, unix.EXT3_SUPER_MAGIC, unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, zfsMagic,
		unix.F2FS_SUPER_MAGIC, unix.BCACHEFS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.RAMFS_MAGIC,
	} {
		require.NoError(t, byNumber(kind, 1<<30).check(false), "%#x", kind)
	}
}

func TestAFileInMemoryIsARiskAndOneOnADiskIsNot(t *testing.T) {
	t.Parallel()
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

func TestAMountPointIsFoundInTheTableOfMounts(t *testing.T) {
	t.Parallel()
	table, err := os.ReadFile("testdata/mountinfo")
	require.NoError(t, err)
	for name, want := range map[string]bool{
		"/data/catalog.db":      true,
		"/data":                 true,
		"/data/a name\twith\\x": true,
		"/data/catalog":         false,
		"/data/catalog.db-wal":  false,
		"/host/catalog.db":      false, // the root of a mount, and no point of one
	} {
		require.Equal(t, want, hasMountPoint(table, name), name)
	}
}
