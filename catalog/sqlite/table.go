package sqlite

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/fsnotify/fsnotify"
	"modernc.org/sqlite"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/ownfile"
)

// errorTable is the one place that says what an error means: what is ours, then
// what SQLite says, then what the system does.
var errorTable = driver.Table{
	Store: "sqlite",
	Families: []driver.Family{
		ours(), resultCodes(), ofContext(), ofClient(), ofSystem(), ofFiles(),
	},
}

// Errors returns what this driver knows about errors. Classification goes by
// the same table.
func Errors() driver.Table { return errorTable.Clone() }

// The remedies that more than one entry names.
const (
	remedyRights     = "give this process the right to read and write the file and its folder"
	remedyDisk       = "look at the disk and the system's log; the next open says what became of the write"
	remedyCorrupt    = "stop every writer, keep a copy of the files, and restore from a backup, without an old -wal or -shm beside it"
	remedyIncomplete = "stop every writer; put the -wal that belongs to this file back beside it, or restore a whole backup; if nobody ever claimed this catalog, as when a build of before this check left no more than notes, remove the file"
	remedyPlanted    = "find out who put it there and remove it; if the database lies elsewhere, name it by its own path"
	remedyFull       = "make room on the disk"
	remedyMoved      = "the file was moved or replaced under this process: stop every writer and find out which file is the right one"
	remedyDiskKind   = "put the file on a local disk (ext4, xfs, btrfs, zfs, f2fs, apfs), or the catalog into PostgreSQL or etcd"
	remedyFolder     = "name a file, not a folder"
	remedyMemory     = "give this process more memory"
	remedyOpen       = "see that the folder exists, mount the file system for writing (readers need that too), and " + remedyRights
	remedyMount      = "mount the file system for writing, and " + remedyRights
)

func callers() driver.Class { return driver.Class{} }

func retry(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Retry, Remedy: remedy}
}

func halt(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Halt, Remedy: remedy}
}

func config(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config, Remedy: remedy}
}

func broken(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Panic, Remedy: remedy}
}

// ofCall is for errors that return to the caller with something to do.
func ofCall(remedy string) driver.Class { return driver.Class{Remedy: remedy} }

func bug() driver.Class { return broken("this is a defect of the driver: report it") }

// value returns an entry for an error that is a value.
func value(target error, code string, class driver.Class, after driver.Outcome, why string) driver.Entry {
	return driver.Line(code, "", class, after, why).For(target)
}

// wrapper returns an entry for a type of error that wraps another: that one
// was asked before.
func wrapper[T error](code, name, why string) driver.Entry {
	e := driver.Line(code, name, bug(), driver.Unknown, why)
	e.Match = func(err error) bool {
		var target T
		return errors.As(err, &target)
	}
	return e
}

// ours are the errors of this package, and of package driver as it uses them.
// None of them is the answer to a COMMIT.
func ours() driver.Family {
	const refused = driver.NotApplied
	return driver.Family{
		Name: "driver", Source: "this driver",
		Entries: []driver.Entry{
			value(driver.ErrConflict, "driver.ErrConflict", callers(), refused, "the condition did not hold; the newest head says what follows"),
			value(driver.ErrCompacted, "driver.ErrCompacted", callers(), refused, "the record was deleted, since a snapshot stands for it; that says what follows"),
			value(driver.ErrTooLarge, "driver.ErrTooLarge", callers(), refused, "the caller's value is above the limit, which is looked at before anything is written"),
			value(errClosed, "closed", callers(), refused, "the caller closed it"),
			value(errEnded, "ended", callers(), refused, "the caller ended the claim"),
			value(context.Canceled, "context.Canceled", callers(), driver.Unknown, "somebody no longer wants the answer; no COMMIT is ever cut short by that"),
			value(errWriting, "own write under way", retry(""), refused, "the call's time was over while another write of this process went on; nothing was sent"),
			value(errMisuse, "misuse", bug(), refused, "a defect above the driver; nothing was written"),
			value(errMovedCommit, "file moved in a commit", broken(remedyMoved), driver.Unknown, "whether anybody sees the commit depends on which file is kept"),
			value(errMoved, "file moved", broken(remedyMoved), refused, "another file has the name: two histories of tokens may be under way"),
			value(errForeign, "foreign file", config("name another file: this one belongs to another program"), refused, "somebody else's database, and nothing of it is touched"),
			value(errFileSystem, "file system", config(remedyDiskKind+"; if all that can see the file share its locks and mapped memory, add ?filesystem=trusted to the URL (Config.TrustFileSystem)"), refused, "two that each believe to have locked a file are two writers"),
			value(driver.ErrTwoWon, "driver.ErrTwoWon", config(remedyDiskKind), refused, "the file system granted the same lock twice: two processes would write at the same time"),
			incomplete(),
			value(ownfile.ErrPlanted, "planted file", config(remedyPlanted), refused, "a link or pipe leads elsewhere, and somebody else may have put it there: nothing is opened, created or changed by way of it"),
			value(ownfile.ErrNotGiven, "owner", config("run this command as the user of the service"), refused, "the file would be this user's alone, and keep the service out"),
			value(errFolder, "folder", config(remedyFolder+"; if it has the name of a file beside the database, remove it"), refused, "a folder has the name of the database, or of a file beside it"),
			value(errNotRegular, "no regular file", config("remove or rename what has the name, and find out who put it there: a database and the files beside it are regular files"), refused, "a device, a pipe or a folder has the name of the database, or of a file beside it"),
			value(errHardLinked, "hard link", config("remove the other names of the file (find them by: find FOLDER -xdev -samefile FILE), and let backups copy the file, not link it"), refused, "beside each name there would be another WAL, and other locks"),
			value(errMounted, "file mount", config("mount the folder that holds the file, not the file"), refused, "beside each name there would be another WAL, and other locks"),
			value(errLinked, "linked name", config("name the file by its own path, in its own folder; if a link is there that should not be, find out who put it there and remove it"), refused, "beside each name there would be another WAL, and other locks"),
			value(errNoMounts, "mounts unknown", config("mount /proc, or allow the system call statx"), refused, "whether the file is mounted by itself can't be told"),
			value(errNotOpened, "not opened", retry("give this process more open files; if it has enough of them, find out what keeps it from opening the file: "+remedyOpen), refused, "a process at its limit of open files can't open one for now"),
			value(errSchema, "schema version", config("start a build that knows this version"), refused, "a build must not guess what another version's tables mean"),
			value(errWanted, "claim under way", retry("another process is claiming; if this lasts, find it and end it"), refused, "the holder gives way to claims, which are bounded"),
			value(ErrNoGuards, "no guard", config("open the catalog by a build that knows guards, or raise the register, or name the schema as which the file is attached (AttachedAs)"), refused, "nothing in the database says which token is the newest"),
			value(errName, "database name", ofCall("name the database as modernc.org/sqlite wants it"), refused, "nothing was opened"),
			value(errDeferred, "deferred transaction", ofCall("begin it by sqlite.Begin, or by BEGIN IMMEDIATE: add _txlock=immediate to the name of the database"), refused, "it can't take the lock for writing, so a claim could commit before it does"),
			value(errGaveWay, "guarded transaction gave way", ofCall("begin it again"), refused, "it was rolled back so that a claim could go on"),
			value(errTooLong, "guarded transaction too long", ofCall("wait for nothing in a guarded transaction, least of all for an Update of this process"), refused, "it was rolled back, since nobody else can write meanwhile"),
			value(errUndone, "guarded transaction undone", ofCall("end the transaction after the first error"), refused, "SQLite has rolled it back"),
			value(errOtherDriver, "another driver", ofCall("begin the transaction by BEGIN IMMEDIATE, and guard it by sqlite.Guard with InRegister"), refused, "Begin needs the hooks of a connection; nothing was begun"),
			value(errTwoLibraries, "two SQLite libraries", config("use modernc.org/sqlite alone for this file, and let no other code of this process open its -shm"), refused, "the one's close drops the other's locks, so that there are two writers, and the file is damaged"),
			value(errOtherLibrary, "another SQLite library", config("hand that library's *sql.DB to sqlite.NewRegister"), refused, "the one's close drops the other's locks, so that there are two writers, and the file is damaged"),
			value(errNoFile, "no application's file", config("start the application once, so that it creates the file, or create an empty one; then check the path, since a register in the wrong file guards nothing"), refused, "a register is made in no file that nobody uses"),
			value(errCatalog, "register in a catalog", config("guard what is in the catalog's file by the catalog's own token, without InRegister"), refused, "its token is the newest by itself"),
			value(errTable, "no table to guard", config("name a table as in SQL, such as orders"), refused, "no guard was installed or removed"),
			value(errReaders, "readers", retry("another process reads an old snapshot; if this lasts, find it and end it"), refused, "a reader holds the checkpoint back for now"),
			value(errDriver, "driver", bug(), refused, "the driver of database/sql is of a version that this one was not made for; nothing was written"),
			value(errAppeared, "database appeared", retry(""), refused, "another process has made the database meanwhile; the file is looked at again"),
			value(errTorn, "torn", retry(""), refused, "the reading of a snapshot was interrupted; it is read again from its beginning"),
			value(errWatchEnded, "watch ended", retry(""), refused, "the catalog watches again"),
		},
	}
}

// incomplete is a panic as a WAL without its database is: what is missing can't
// be had by another start, nor by other settings.
func incomplete() driver.Entry {
	e := value(errIncomplete, "incomplete file", broken(remedyIncomplete), driver.NotApplied,
		"the file was copied or moved without its WAL, which had the first claim: to claim it would begin a second history of tokens")
	e.Is = driver.ErrCorrupt
	return e
}

// ofContext also has driver.ErrCorrupt, which an answer of SQLite's precedes.
func ofContext() driver.Family {
	return driver.Family{
		Name: "context", Source: "the errors of Go's context, and what was read",
		Entries: []driver.Entry{
			value(driver.ErrCorrupt, "driver.ErrCorrupt", broken(remedyCorrupt), driver.NotApplied, "what was read is nothing that this library wrote"),
			value(context.DeadlineExceeded, "context.DeadlineExceeded", retry(""), driver.Unknown, "the file was locked, or the disk slow, for all of the catalog's deadline"),
		},
	}
}

// ofClient are the errors of modernc.org/sqlite, database/sql and fsnotify that
// are values.
func ofClient() driver.Family {
	const unknown = driver.Unknown
	const setting = "of a setting that the driver does not use"
	const locks = "of the switch to locks that belong to open files: a finding and a warning of the probe, and no error of a call"
	return driver.Family{
		Name: "client", Source: "modernc.org/sqlite, database/sql and fsnotify",
		Entries: []driver.Entry{
			value(sqlite.ErrOFDLockingUnavailable, "sqlite.ErrOFDLockingUnavailable", bug(), unknown, locks),
			value(sqlite.ErrOFDLockingTooLate, "sqlite.ErrOFDLockingTooLate", bug(), unknown, locks),
			value(sqlite.ErrPageCacheTooLate, "sqlite.ErrPageCacheTooLate", bug(), unknown, setting),
			value(sqlite.ErrPageCacheConflict, "sqlite.ErrPageCacheConflict", bug(), unknown, setting),
			value(sqlite.ErrMultiStatementPragma, "sqlite.ErrMultiStatementPragma", bug(), unknown, setting),
			value(sql.ErrNoRows, "sql.ErrNoRows", bug(), unknown, "our statements that read a row always have one to give, or say so"),
			value(sql.ErrConnDone, "sql.ErrConnDone", bug(), unknown, "a connection was used after its end"),
			value(sql.ErrTxDone, "sql.ErrTxDone", bug(), unknown, "a transaction was used after its end"),
			value(sqldriver.ErrBadConn, "driver.ErrBadConn", bug(), unknown, "a connection to a file does not break"),
			value(sqldriver.ErrSkip, "driver.ErrSkip", bug(), unknown, "a word between database/sql and its driver that nobody else hears"),
			value(sqldriver.ErrRemoveArgument, "driver.ErrRemoveArgument", bug(), unknown, "a word between database/sql and its driver that nobody else hears"),
			value(fsnotify.ErrEventOverflow, "fsnotify.ErrEventOverflow", retry(""), unknown, "the kernel had more events than room: a wake-up may be lost, and the catalog polls besides"),
			value(fsnotify.ErrClosed, "fsnotify.ErrClosed", retry(""), unknown, "the watch was closed; the catalog watches again"),
			value(fsnotify.ErrNonExistentWatch, "fsnotify.ErrNonExistentWatch", retry(""), unknown, "the watched file has gone; the catalog watches again"),
		},
	}
}

// ofFiles are the errors of Go's file functions without a number of the
// system's.
func ofFiles() driver.Family {
	const unknown = driver.Unknown
	return driver.Family{
		Name: "file", Source: "the errors of Go's io, io/fs and os",
		Entries: []driver.Entry{
			value(fs.ErrPermission, "fs.ErrPermission", config(remedyRights), unknown, "this process may not do that to the file"),
			value(fs.ErrNotExist, "fs.ErrNotExist", config("create the folder, or name another file"), unknown, "there is no such file or folder"),
			value(fs.ErrExist, "fs.ErrExist", bug(), unknown, "there is such a file already, and only a defect asks for a new one"),
			value(fs.ErrClosed, "fs.ErrClosed", bug(), unknown, "a file was used after its end"),
			value(fs.ErrInvalid, "fs.ErrInvalid", bug(), unknown, "the system was asked for something that makes no sense"),
			value(os.ErrDeadlineExceeded, "os.ErrDeadlineExceeded", bug(), unknown, "no file of ours has a deadline"),
			value(os.ErrNoDeadline, "os.ErrNoDeadline", bug(), unknown, "no file of ours has a deadline"),
			value(os.ErrProcessDone, "os.ErrProcessDone", bug(), unknown, "of processes; the driver starts none"),
			value(os.ErrNoHandle, "os.ErrNoHandle", bug(), unknown, "of processes; the driver starts none"),
			value(io.EOF, "io.EOF", bug(), unknown, "a file ended where it may not"),
			value(io.ErrUnexpectedEOF, "io.ErrUnexpectedEOF", bug(), unknown, "a file ended where it may not"),
			value(io.ErrClosedPipe, "io.ErrClosedPipe", bug(), unknown, "the driver has no pipes"),
			value(io.ErrNoProgress, "io.ErrNoProgress", bug(), unknown, "a reader broke its contract"),
			value(io.ErrShortBuffer, "io.ErrShortBuffer", bug(), unknown, "a reader was given too little room"),
			value(io.ErrShortWrite, "io.ErrShortWrite", bug(), unknown, "a writer broke its contract"),
			wrapper[*fs.PathError]("fs.PathError", "an operation on a path failed", "what it wraps is known no better"),
			wrapper[*os.LinkError]("os.LinkError", "an operation on a link failed", "the driver makes no links"),
			wrapper[*os.SyscallError]("os.SyscallError", "a system call failed", "what it wraps is known no better"),
		},
	}
}
