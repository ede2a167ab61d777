package sqlite

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
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
