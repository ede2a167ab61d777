//go:build darwin || freebsd || dragonfly

package sqlite

import (
	"os"

	"golang.org/x/sys/unix"
)

// fileSystems are those that are known to be good, by the name that statfs(2)
// has for them.
var fileSystems = map[string]trust{
	"apfs": onDisk, "hfs": onDisk, // macOS
	"ufs": onDisk, "zfs": onDisk, "hammer": onDisk, "hammer2": onDisk, // the BSDs
	"tmpfs": inMemory,
}

// lookAt asks the system on which file system a folder is.
func lookAt(folder string) (fileSystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return fileSystem{}, &os.PathError{Op: "statfs", Path: folder, Err: err}
	}
	name := unix.ByteSliceToString(st.Fstypename[:])
	return fileSystem{name: name, trust: fileSystems[name], free: uint64(st.Bavail) * uint64(st.Bsize)}, nil
}
