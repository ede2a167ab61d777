package ownfile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// RenameNew gives a file its name, unless another file has it: then the error is
// fs.ErrExist. At no moment has the file two names, for which other processes
// would refuse it.
func RenameNew(from, to string) error {
	err := unix.RenamexNp(from, to, unix.RENAME_EXCL)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EINVAL) { // the file system can't
		return linkNew(from, to)
	}
	return err
}
