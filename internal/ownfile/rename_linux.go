package ownfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// RenameNew gives a file its name, unless another file has it: then the error is
// fs.ErrExist. At no moment has the file two names, for which other processes
// would refuse it.
func RenameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) { // the file system can't
		return linkNew(from, to)
	}
	return err
}
