//go:build unix && !solaris && !illumos && !aix

package reap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/ownfile"
)

// openLockFile opens the file of a lock, and creates it if there is none. Whatever else
// is in its place stays as it is.
func openLockFile(path string) (*os.File, error) {
	f, err := openOwn(path)
	switch {
	case err == nil:
		return f, nil
	case passes(err):
		return nil, exitcodes.With(fmt.Errorf("reap: lock file: %w: try again, or give this host more room", err), exitcodes.Retry)
	default:
		return nil, exitcodes.WithCode(fmt.Errorf("reap: lock file: %w", err), exitcodes.Config)
	}
}

// passes reports whether the host lacked something for the moment, such as room or file
// descriptors: no change of configuration is needed then.
func passes(err error) bool {
	for _, lack := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN, syscall.EINTR, syscall.ENOSPC, syscall.EDQUOT,
	} {
		if errors.Is(err, lack) {
			return true
		}
	}
	return false
}

func openOwn(path string) (*os.File, error) {
	like, err := ownfile.Like(path)
	if err != nil {
		return nil, err
	}
	f, err := ownfile.OpenLock(path, like.AsLock())
	if err != nil {
		return nil, err
	}
	if err := isLockFile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// isLockFile refuses a file into which no lock record belongs: somebody may have given
// a file of ours a second name.
func isLockFile(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink > 1 {
		return fmt.Errorf("%w: %s has %d names: remove all but one", ownfile.ErrPlanted, f.Name(), stat.Nlink)
	}
	text := make([]byte, maxLockRecord)
	n, _ := f.ReadAt(text, 0)           // at the end of the file there is an error too
	text = bytes.Trim(text[:n], "\x00") // what a power cut may leave
	if info.Size() > maxLockRecord || len(text) > 0 && !bytes.HasPrefix(text, []byte(lockBegin)) {
		return fmt.Errorf("%w: %s has %d bytes that are no lock record: name a file of its own", ownfile.ErrPlanted, f.Name(), info.Size())
	}
	return nil
}

// flock reports whether it has locked the file.
func flock(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, fmt.Errorf("reap: lock file %s: %w: it must be on a disk of this host", f.Name(), err)
		}
	}
}

// isStillAt reports whether others who open path find the same file.
func isStillAt(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, now), err
}

func releaseFile(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}

// createLike creates the file name with the owner and mode that the one at path has, or
// ought to have.
func createLike(path, name string) (*os.File, error) {
	like, err := ownfile.Like(path)
	if err != nil {
		return nil, err
	}
	return like.Create(name)
}

// openResult opens a file that this user, root or the owner of its folder has written.
func openResult(path string) (*os.File, error) {
	f, err := ownfile.Open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	if err := isBelievable(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func isBelievable(f *os.File, path string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	above, also := folder.Sys().(*syscall.Stat_t)
	if ok && also && owner.Uid != 0 && owner.Uid != above.Uid && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s is of user %d", ownfile.ErrPlanted, path, owner.Uid)
	}
	return nil
}
