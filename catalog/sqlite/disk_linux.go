package sqlite

import (
	"cmp"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
)

// The numbers of file systems, as statfs(2) has them.
const (
	cifsMagic = 0xff534d42
	smb2Magic = 0xfe534d42
)

// probeDisk says whether the file system keeps what it is given, and whether
// its locks can be trusted.
func (s *Store) probeDisk() driver.Finding {
	f := driver.Finding{Name: "file system"}
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(s.path), &st); err != nil {
		f.Grade, f.Detail, f.Remedy = driver.Failure, fmt.Sprintf("the folder of the file can't be looked at: %v", err), cmp.Or(bySystem(err).Remedy, remedyRights)
		return f
	}
	return judgeDisk(f, uint32(st.Type), st.Bavail*uint64(st.Bsize))
}

// checkDisk refuses a folder on a network file system: two hosts that each
// believe to have locked a file there are two writers.
func checkDisk(folder string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return err
	}
	return checkKind(uint32(st.Type))
}

func checkKind(kind uint32) error {
	switch kind {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, cifsMagic, smb2Magic, unix.V9FS_MAGIC, unix.CEPH_SUPER_MAGIC, unix.AFS_SUPER_MAGIC:
		return fmt.Errorf("%w (%#x)", errNetwork, kind)
	}
	return nil
}

func judgeDisk(f driver.Finding, kind uint32, free uint64) driver.Finding {
	const little = 64 << 20
	if err := checkKind(kind); err != nil {
		f.Grade, f.Detail, f.Remedy = driver.Failure, err.Error(), classify(err, false).Remedy
		return f
	}
	switch kind {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		f.Grade, f.Detail, f.Remedy = driver.Warning, "the file is in memory: it does not survive a restart of the machine", "put the file on a disk"
	default:
		f.Detail = fmt.Sprintf("local, %d MiB free", free>>20)
	}
	if f.Grade == driver.Fine && free < little {
		f.Grade, f.Remedy = driver.Warning, remedyFull
	}
	return f
}
