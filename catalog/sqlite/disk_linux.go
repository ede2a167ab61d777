package sqlite

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// fileSystems are those that a name is worth, by the number that statfs(2) has
// for them. One that is missing here is untrusted.
var fileSystems = map[uint32]fileSystem{
	unix.EXT4_SUPER_MAGIC:      {name: "ext4", trust: onDisk}, // and ext2, ext3
	unix.XFS_SUPER_MAGIC:       {name: "xfs", trust: onDisk},
	unix.BTRFS_SUPER_MAGIC:     {name: "btrfs", trust: onDisk},
	zfsMagic:                   {name: "zfs", trust: onDisk},
	unix.F2FS_SUPER_MAGIC:      {name: "f2fs", trust: onDisk},
	unix.BCACHEFS_SUPER_MAGIC:  {name: "bcachefs", trust: onDisk},
	jfsMagic:                   {name: "jfs", trust: onDisk},
	unix.OVERLAYFS_SUPER_MAGIC: {name: "overlay", trust: onDisk}, // its locks are the kernel's own, whatever lies beneath
	unix.TMPFS_MAGIC:           {name: "tmpfs", trust: inMemory},
	unix.RAMFS_MAGIC:           {name: "ramfs", trust: inMemory},

	unix.FUSE_SUPER_MAGIC:  {name: "FUSE (as virtiofs, sshfs, s3fs and the shared folders of Docker Desktop are)"},
	unix.V9FS_MAGIC:        {name: "9p, the shared folder of a virtual machine"},
	unix.NFS_SUPER_MAGIC:   {name: "NFS"},
	unix.SMB_SUPER_MAGIC:   {name: "SMB"},
	unix.SMB2_SUPER_MAGIC:  {name: "SMB"},
	unix.CIFS_SUPER_MAGIC:  {name: "SMB (cifs)"},
	unix.CEPH_SUPER_MAGIC:  {name: "CephFS"},
	unix.AFS_SUPER_MAGIC:   {name: "AFS"},
	unix.CODA_SUPER_MAGIC:  {name: "Coda"},
	unix.OCFS2_SUPER_MAGIC: {name: "OCFS2, which several hosts mount"},
	gfs2Magic:              {name: "GFS2, which several hosts mount"},
	lustreMagic:            {name: "Lustre"},
	vboxMagic:              {name: "a shared folder of VirtualBox"},
	unix.MSDOS_SUPER_MAGIC: {name: "FAT"},
	unix.EXFAT_SUPER_MAGIC: {name: "exFAT"},
}

// The numbers that golang.org/x/sys/unix lacks.
const (
	zfsMagic    = 0x2fc12fc1
	jfsMagic    = 0x3153464a
	gfs2Magic   = 0x01161970
	lustreMagic = 0x0bd00bd0
	vboxMagic   = 0x786f4256
)

// lookAt asks the system on which file system a folder is.
func lookAt(folder string) (fileSystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return fileSystem{}, &os.PathError{Op: "statfs", Path: folder, Err: err}
	}
	return byNumber(uint32(st.Type), st.Bavail*uint64(st.Bsize)), nil
}

// byNumber returns the file system of a number of statfs(2).
func byNumber(number uint32, free uint64) fileSystem {
	at, ok := fileSystems[number]
	if !ok {
		at.name = "one that is not known"
	}
	at.name = fmt.Sprintf("%s (%#x)", at.name, number)
	at.free = free
	return at
}
