//go:build unix

package exitcodes

import (
	"errors"
	"os"
	"syscall"
)

var errAnothers = errors.New("the file is another user's or group's, or has another name")

// takeAfter gives a file the mode of an old one whose place it is to take. It fails
// if more than that would change for others.
func takeAfter(file *os.File, old os.FileInfo) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	is, ok := info.Sys().(*syscall.Stat_t)
	was, also := old.Sys().(*syscall.Stat_t)
	if !ok || !also || is.Uid != was.Uid || is.Gid != was.Gid || was.Nlink != 1 {
		return errAnothers
	}
	return file.Chmod(old.Mode())
}
