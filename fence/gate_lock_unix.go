//go:build unix && !solaris && !illumos && !aix

package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openLock opens a lock file, creates it if there is none, and locks it.
func openLock(path string, like likeness) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case err == nil:
		err = like.give(f)
	case errors.Is(err, fs.ErrExist):
		f, err = os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	}
	if err == nil {
		err = lock(f)
	}
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	return f, nil
}

func lock(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is %v, want a regular file", ErrGateFile, f.Name(), info.Mode().Type())
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("%w: %s is locked by another process, or opened twice: let one process have it", ErrGateInUse, f.Name())
		}
		return err
	}
}

// names returns how many names a file has.
func names(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Nlink)
	}
	return 1
}

func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }

// giveOwner gives f the owner and group of info. A file that would be another
// user's is an error, a group that this process may not give is not.
func giveOwner(f *os.File, like fs.FileInfo) (group bool, err error) {
	want, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		return true, nil
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	has := info.Sys().(*syscall.Stat_t)
	group = has.Gid == want.Gid || f.Chown(-1, int(want.Gid)) == nil
	if has.Uid != want.Uid && !like.IsDir() || has.Uid != want.Uid && os.Geteuid() == 0 {
		if err := f.Chown(int(want.Uid), -1); err != nil {
			return group, fmt.Errorf("it is user %d's: run this process as that user: %w", want.Uid, err)
		}
	}
	return group, nil
}
