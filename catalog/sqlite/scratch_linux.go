package sqlite

import (
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
)

// lockTries are the kinds of lock that commits rest on: flock for the -claim
// file, OFD locks for the database, and POSIX locks for -shm. Two POSIX locks of
// one process do not exclude each other, but a POSIX lock and an OFD lock do.
func lockTries() []lockTry {
	ofd, posix := byFcntl(unix.F_OFD_SETLK), byFcntl(unix.F_SETLK)
	return []lockTry{
		byFlock(),
		{what: "OFD locks, as on the database", lock: ofd(unix.F_WRLCK), tryLock: ofd(unix.F_WRLCK), unlock: ofd(unix.F_UNLCK)},
		{what: "a POSIX lock beside an OFD lock, as on the -shm file", lock: ofd(unix.F_WRLCK), tryLock: posix(unix.F_WRLCK), unlock: ofd(unix.F_UNLCK)},
	}
}

func byFcntl(command int) func(kind int16) func(*os.File) error {
	return func(kind int16) func(*os.File) error {
		return func(f *os.File) error {
			return unix.FcntlFlock(f.Fd(), command, &unix.Flock_t{Type: kind, Whence: 0, Start: 0, Len: 1})
		}
	}
}

// tryMemory requires that what one open file writes into the mapped file, another
// reads, as SQLite does with the index of the WAL in -shm.
func tryMemory(one, two *os.File) (err error) {
	size := os.Getpagesize()
	a, err := unix.Mmap(int(one.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping %s: %w", one.Name(), err)
	}
	defer func() { _ = unix.Munmap(a) }() // it was mapped
	b, err := unix.Mmap(int(two.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping %s: %w", two.Name(), err)
	}
	defer func() { _ = unix.Munmap(b) }() // it was mapped
	if err := touch(a); err != nil {
		return fmt.Errorf("writing into mapped memory of %s: %w", one.Name(), err)
	}
	if a[0] != b[0] {
		return fmt.Errorf("%w: what was written into mapped memory of %s is not what another mapping of it has: -shm needs that", driver.ErrTwoWon, one.Name())
	}
	return nil
}

// touch changes mapped memory. If the file system has no room for the page, or
// fails, that is an error and not the end of the process.
func touch(mapped []byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%w: %v", unix.EIO, fault)
		}
	}()
	mapped[0]++
	return nil
}
