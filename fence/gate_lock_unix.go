//go:build unix && !solaris && !illumos && !aix

package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/fencepost/fencepost/internal/ownfile"
)

// openLock opens the lock file of the registers at path, creates it if there is none,
// and locks it.
func openLock(path string) (*os.File, error) {
	like, err := ownfile.Like(path)
	if err != nil {
		return nil, planted(err)
	}
	f, err := ownfile.OpenLock(path+lockEnding, like.AsLock())
	if err != nil {
		return nil, planted(err)
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// createLike creates the file name with the owner and mode that the one at path has,
// or ought to have.
func createLike(path, name string) (*os.File, error) {
	like, err := ownfile.Like(path)
	if err != nil {
		return nil, planted(err)
	}
	return like.Create(name)
}

// planted says of a file that something else is in its place.
func planted(err error) error {
	if errors.Is(err, ownfile.ErrPlanted) {
		return fmt.Errorf("%w: %w: find out who put it there", ErrGateFile, err)
	}
	return err
}

func lock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
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
