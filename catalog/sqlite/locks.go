package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/fencepost/fencepost/catalog/driver"
)

// A POSIX lock belongs to a process and a file: the kernel drops it as soon as
// the process closes any descriptor of that file, whoever opened that. So this
// package opens neither the database file nor its -shm file, not even to look
// at them: it asks for their names only. For the database file Linux has a
// better kind, the locks of an open file description (OFD), which no other
// close drops; SQLite uses them once it is told to.

// ofdVar is the variable by which SQLite's client lets a user decide.
const ofdVar = "MODERNC_SQLITE_OFD_LOCK"

var errOFDOff = errors.New("it is switched off by " + ofdVar)

// lockByOpenFile makes SQLite lock database files by OFD locks, or returns why
// that can't be. The switch is one for the whole process, and works only before
// the first lock of any database. A call that changes nothing costs nothing.
func lockByOpenFile() error {
	if strings.HasPrefix(os.Getenv(ofdVar), "0") {
		return errOFDOff
	}
	_, err := sqlite.OFDLocking(true)
	return err
}

// probeLocks says whether other code of this process could drop SQLite's locks.
func probeLocks(path string) driver.Finding {
	f := judgeLocks(lockByOpenFile())
	if err := oneLibrary(path); err != nil {
		f.Grade, f.Detail, f.Remedy = driver.Failure, err.Error(), classify(err, false).Remedy
	}
	return f
}

// judgeLocks says what an answer of lockByOpenFile means.
func judgeLocks(err error) driver.Finding {
	f := driver.Finding{Name: "locks", Detail: "SQLite's locks on the database file belong to its open file (OFD): this process may open and close the file elsewhere, " +
		"but never its -shm file"}
	if err == nil {
		return f
	}
	f.Grade = driver.Warning
	f.Detail = fmt.Sprintf("SQLite's locks on the database file belong to this process, and any close of that file drops them all, so that two writers are possible: %v", err)
	const forbid = "let no code of this process open the database file or its -shm file, but SQLite"
	switch {
	case errors.Is(err, errOFDOff):
		f.Remedy = "unset " + ofdVar + "; until then, " + forbid
	case errors.Is(err, sqlite.ErrOFDLockingTooLate):
		f.Remedy = "open the catalog's store before any other SQLite database of this process, or call OFDLocking(true) of modernc.org/sqlite first of all; until then, " + forbid
	default:
		f.Remedy = forbid
	}
	return f
}

// errNotOpened counts as passing: a process at its limit of open files gets
// there and away again faster than anybody can ask.
var errNotOpened = errors.New("SQLite could not open a file, and the system names no reason that would last")

// whyNotOpen asks the system, since SQLite does not say why it could not open a
// file, or could open it for reading only. It holds no descriptor of a file that
// SQLite locks.
func whyNotOpen(path string, err error) error {
	shut := notReadable
	if codeOf(err) == lib.SQLITE_READONLY {
		shut = notWritable
	}
	if why := shut(path); why != nil {
		return fmt.Errorf("%w: %w", err, why)
	}
	folder, why := os.Open(filepath.Dir(path))
	if why == nil {
		return errors.Join(fmt.Errorf("%w: %w", errNotOpened, err), folder.Close())
	}
	if errors.Is(why, syscall.EMFILE) || errors.Is(why, syscall.ENFILE) {
		return why
	}
	return fmt.Errorf("%w: %w", err, why)
}

// notReadable returns why a reader could not open the files, as far as names and
// rights tell: one that is missing must be made.
func notReadable(path string) error {
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		err := may(name, unix.R_OK)
		if errors.Is(err, fs.ErrNotExist) {
			err = may(filepath.Dir(path), unix.W_OK|unix.X_OK)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// notWritable returns why a writer could not.
func notWritable(path string) error {
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if err := may(name, unix.R_OK|unix.W_OK); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return may(filepath.Dir(path), unix.W_OK|unix.X_OK)
}

// readOnly reports whether a connection for writing turned out to be one for
// reading, which SQLite falls back to where it can't open a file for writing. It
// is of no use, and must be opened anew.
func readOnly(err error) bool { return codeOf(err)&0xff == lib.SQLITE_READONLY }

// may returns why the process may not do something with a file.
func may(name string, what uint32) error {
	if err := unix.Faccessat(unix.AT_FDCWD, name, what, unix.AT_EACCESS); err != nil {
		return &fs.PathError{Op: "access", Path: name, Err: err}
	}
	return nil
}
