package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// lockByte locks one byte, which may lie behind the end of the file, for as
// long as f is open: the kernel releases it when the process dies. The lock is
// f's own: another open file of the same process is as good as another process,
// and no close of another one releases it, unlike with POSIX's locks.
func lockByte(f *os.File, at int64) error {
	err := ofd(f, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: at, Len: 1})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return errShown
	}
	return err
}

// isLocked asks whether another open file has the byte locked, and locks
// nothing itself.
func isLocked(f *os.File, at int64) (bool, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: at, Len: 1}
	err := ofd(f, unix.F_OFD_GETLK, &lock)
	return err == nil && lock.Type != unix.F_UNLCK, err
}

func ofd(f *os.File, command int, lock *unix.Flock_t) error {
	for {
		err := unix.FcntlFlock(f.Fd(), command, lock)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}
