package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// wrap classifies an error. Committing says that it is the answer to a COMMIT.
func (s *Store) wrap(op string, err error, committing bool) error {
	if err == nil {
		return nil
	}
	var own *driver.Error
	var caller *callerError
	switch {
	case errors.As(err, &own):
		return err
	case errors.As(err, &caller):
		return caller.err
	}
	if codeOf(err) == lib.SQLITE_CANTOPEN {
		err = s.whyNotOpen(err)
	}
	if code := codeOf(err); code&0xff == lib.SQLITE_FULL {
		err = fmt.Errorf("%w: %w", driver.ErrFull, err)
	} else if code&0xff == lib.SQLITE_CORRUPT || code&0xff == lib.SQLITE_NOTADB {
		err = fmt.Errorf("%w: %w", driver.ErrCorrupt, err)
	}
	return &driver.Error{Class: classify(err, committing), Store: s.String(), Op: op, Err: err}
}

// whyNotOpen asks the system, since SQLite does not say why it can't open a
// file. Being out of file descriptors passes; the rest does not.
func (s *Store) whyNotOpen(err error) error {
	f, why := os.Open(s.path)
	if why == nil {
		return errors.Join(err, f.Close())
	}
	if errors.Is(why, syscall.EMFILE) || errors.Is(why, syscall.ENFILE) {
		return why
	}
	return err
}

// busy reports whether err is a lock of another connection, which passes.
func busy(err error) bool {
	switch codeOf(err) & 0xff {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_PROTOCOL:
		return true
	}
	return errors.Is(err, errWanted) || errors.Is(err, errReaders)
}

// codeOf returns SQLite's extended result code, or -1 where err has none.
func codeOf(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return -1
}

// The remedies that more than one entry names.
const (
	remedyRights  = "give this process the right to read and write the file and its folder"
	remedyDisk    = "look at the disk and the system's log; the next open says what became of the write"
	remedyCorrupt = "stop every writer, keep a copy of the files, and restore from a backup"
	remedyFull    = "make room on the disk"
)

var (
	retry = driver.Class{Disposition: exitcodes.Retry}
	bug   = driver.Class{Disposition: exitcodes.Panic, Remedy: "this is a defect of the driver: report it"}
)

func halt(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Halt, Remedy: remedy}
}

func config(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config, Remedy: remedy}
}

func corrupt() driver.Class {
	return driver.Class{Disposition: exitcodes.Panic, Remedy: remedyCorrupt}
}

// byExtended holds the codes that mean something else than their primary code.
var byExtended = map[int]driver.Class{
	lib.SQLITE_IOERR_CORRUPTFS:       corrupt(),
	lib.SQLITE_IOERR_DATA:            corrupt(),
	lib.SQLITE_IOERR_SHORT_READ:      corrupt(),
	lib.SQLITE_READONLY_DBMOVED:      {Disposition: exitcodes.Panic, Remedy: "the file was moved or replaced under this process: stop every writer and find out which file is the right one"},
	lib.SQLITE_ABORT_ROLLBACK:        retry,
	lib.SQLITE_ERROR_RETRY:           retry,
	lib.SQLITE_ERROR_SNAPSHOT:        retry,
	lib.SQLITE_CONSTRAINT_TRIGGER:    bug,
	lib.SQLITE_CANTOPEN_SYMLINK:      config("name the file itself, not a symbolic link"),
	lib.SQLITE_CANTOPEN_ISDIR:        config("name a file, not a folder"),
	lib.SQLITE_READONLY_DIRECTORY:    config(remedyRights),
	lib.SQLITE_CANTOPEN_DIRTYWAL:     halt("start anew: another program changed the file's WAL"),
	lib.SQLITE_CANTOPEN_NOTEMPDIR:    config("give this process a folder for temporary files"),
	lib.SQLITE_CANTOPEN_CONVPATH:     config("name the file by another path"),
	lib.SQLITE_CANTOPEN_FULLPATH:     config("name the file by an absolute path that exists"),
	lib.SQLITE_BUSY_TIMEOUT:          retry,
	lib.SQLITE_LOCKED_SHAREDCACHE:    retry,
	lib.SQLITE_LOCKED_VTAB:           bug,
	lib.SQLITE_AUTH_USER:             config(remedyRights),
	lib.SQLITE_CORRUPT_SEQUENCE:      corrupt(),
	lib.SQLITE_CONSTRAINT_VTAB:       bug,
	lib.SQLITE_CONSTRAINT_FUNCTION:   bug,
	lib.SQLITE_ERROR_MISSING_COLLSEQ: bug,
}

// byPrimary holds what the low byte of a code means.
var byPrimary = map[int]driver.Class{
	lib.SQLITE_BUSY:      {Disposition: exitcodes.Retry, Remedy: "another process holds the file; if this lasts, find it and end it"},
	lib.SQLITE_LOCKED:    retry,
	lib.SQLITE_PROTOCOL:  retry,
	lib.SQLITE_SCHEMA:    retry,
	lib.SQLITE_INTERRUPT: retry,
	lib.SQLITE_ABORT:     bug,

	lib.SQLITE_FULL: {Disposition: exitcodes.Retry, Remedy: remedyFull},

	lib.SQLITE_IOERR:    halt(remedyDisk),
	lib.SQLITE_NOMEM:    halt("give this process more memory"),
	lib.SQLITE_READONLY: config("mount the file system for writing, and " + remedyRights),
	lib.SQLITE_CANTOPEN: config("see that the folder exists, mount the file system for writing (readers need that too), and " + remedyRights),
	lib.SQLITE_PERM:     config(remedyRights),
	lib.SQLITE_AUTH:     config(remedyRights),
	lib.SQLITE_NOLFS:    config("use a file system that takes files of more than 2 GiB"),

	lib.SQLITE_CORRUPT: corrupt(),
	lib.SQLITE_NOTADB:  {Disposition: exitcodes.Panic, Remedy: "the file is no SQLite database: " + remedyCorrupt + ", or name another file"},
	lib.SQLITE_FORMAT:  corrupt(),

	lib.SQLITE_TOOBIG:     {Disposition: exitcodes.None},
	lib.SQLITE_CONSTRAINT: corrupt(), // our tables refuse only what a sound catalog can't cause

	lib.SQLITE_ERROR:    bug,
	lib.SQLITE_INTERNAL: bug,
	lib.SQLITE_MISUSE:   bug,
	lib.SQLITE_RANGE:    bug,
	lib.SQLITE_NOTFOUND: bug,
	lib.SQLITE_MISMATCH: bug,
	lib.SQLITE_EMPTY:    bug,
}

// definite are the primary codes that, as the answer to a COMMIT, say for
// certain that it was rolled back. A failed sync is none: its frames stand in
// the WAL, and a later open may find them.
var definite = map[int]bool{lib.SQLITE_BUSY: true, lib.SQLITE_LOCKED: true, lib.SQLITE_FULL: true, lib.SQLITE_CONSTRAINT: true}

// classify is the one table that says what an error of SQLite or the system
// means.
func classify(err error, committing bool) driver.Class {
	switch {
	case errors.Is(err, driver.ErrConflict), errors.Is(err, driver.ErrCompacted), errors.Is(err, errClosed), errors.Is(err, errEnded), errors.Is(err, context.Canceled):
		return driver.Class{}
	case errors.Is(err, errMisuse):
		return bug
	case errors.Is(err, errMoved):
		return byExtended[lib.SQLITE_READONLY_DBMOVED]
	case errors.Is(err, errForeign):
		return config("name another file: this one belongs to another program")
	case errors.Is(err, errNetwork):
		return config("put the file on a local disk, or the catalog into PostgreSQL or etcd")
	case errors.Is(err, errFolder):
		return byExtended[lib.SQLITE_CANTOPEN_ISDIR]
	case errors.Is(err, errSchema):
		return config("start a build that knows this version")
	}
	if code := codeOf(err); code >= 0 {
		return withOutcome(byCode(code), code, committing)
	}
	switch {
	case errors.Is(err, driver.ErrCorrupt):
		return corrupt()
	case errors.Is(err, errWanted):
		return driver.Class{Disposition: exitcodes.Retry, Remedy: "another process is claiming; if this lasts, find it and end it"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errWatchEnded), errors.Is(err, errTorn):
		return retry
	}
	return withOutcome(bySystem(err), -1, committing)
}

func byCode(code int) driver.Class {
	if class, ok := byExtended[code]; ok {
		return class
	}
	if class, ok := byPrimary[code&0xff]; ok {
		return class
	}
	return driver.Class{Disposition: exitcodes.Panic, Remedy: fmt.Sprintf("SQLite's result code %d is unknown: report it", code)}
}

func withOutcome(class driver.Class, code int, committing bool) driver.Class {
	if committing && (code < 0 || !definite[code&0xff]) {
		class.Outcome = driver.Unknown
	}
	return class
}

// bySystem holds what errors of the operating system mean.
func bySystem(err error) driver.Class {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return driver.Class{Disposition: exitcodes.Retry, Remedy: remedyFull}
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return driver.Class{Disposition: exitcodes.Retry, Remedy: "give this process more open files"}
	case errors.Is(err, syscall.EROFS):
		return config("mount the file system for writing")
	case errors.Is(err, fs.ErrPermission):
		return config(remedyRights)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return config("create the folder, or name another file")
	case errors.Is(err, syscall.EIO):
		return halt(remedyDisk)
	default:
		return driver.Class{Disposition: exitcodes.Panic, Remedy: "nobody knows this error: report it"}
	}
}
