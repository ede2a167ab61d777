package sqlite

import (
	"slices"
	"strconv"

	lib "modernc.org/sqlite/lib"

	"github.com/fencepost/fencepost/catalog/driver"
)

// resultCodes is every result code of SQLite, primary and extended. An extended
// code that is newer than this table goes by its primary code, its low byte.
//
// Not applied, as the answer to a COMMIT, is what SQLite rolls back for
// certain. A failed sync is none: its frames stand in the WAL, and a later open
// may find them.
func resultCodes() driver.Family {
	return driver.Family{
		Name:    "result code",
		Source:  "SQLite's primary and extended codes, as modernc.org/sqlite/lib has them",
		Entries: slices.Concat(locks(), space(), disk(), openings(), damages(), constraints(), mistakes(), notErrors()),
		Key: func(err error) (string, bool) {
			code := codeOf(err)
			return strconv.Itoa(code), code >= 0
		},
		Class: func(text string) (string, bool) {
			code, err := strconv.ParseUint(text, 10, 31)
			switch {
			case err != nil:
				return "", false
			case code <= 0xff:
				return "", true
			}
			return strconv.FormatUint(code&0xff, 10), true
		},
	}
}

// A coded is one code, of several that mean the same.
type coded struct {
	code      int
	name, why string
}

func codes(class driver.Class, after driver.Outcome, rows ...coded) (entries []driver.Entry) {
	for _, r := range rows {
		e := driver.Line(strconv.Itoa(r.code), r.name, class, after, r.why)
		if r.code == lib.SQLITE_NOMEM || r.code == lib.SQLITE_IOERR_NOMEM {
			e.Also = []string{r.name + "_BKPT"} // the same number
		}
		entries = append(entries, e)
	}
	return entries
}

// is says which error of package driver the entries are besides.
func is(err error, entries []driver.Entry) []driver.Entry {
	for i := range entries {
		entries[i].Is = err
	}
	return entries
}

func locks() []driver.Entry {
	const refused = driver.NotApplied
	return slices.Concat(
		codes(retry("another process holds the file; if this lasts, find it and end it"), refused,
			coded{lib.SQLITE_BUSY, "SQLITE_BUSY", "another connection has the lock; at a COMMIT the transaction stays open and is rolled back"},
			coded{lib.SQLITE_BUSY_RECOVERY, "SQLITE_BUSY_RECOVERY", "another process reads the WAL of one that died"},
			coded{lib.SQLITE_BUSY_SNAPSHOT, "SQLITE_BUSY_SNAPSHOT", "another connection wrote since our snapshot; the whole transaction is tried again"}),
		codes(retry(""), refused,
			coded{lib.SQLITE_BUSY_TIMEOUT, "SQLITE_BUSY_TIMEOUT", "a lock that the system waits for was not free in time"},
			coded{lib.SQLITE_LOCKED, "SQLITE_LOCKED", "another statement of this process has the table"},
			coded{lib.SQLITE_LOCKED_SHAREDCACHE, "SQLITE_LOCKED_SHAREDCACHE", "another connection of a shared cache has the table"}),
		codes(bug(), refused,
			coded{lib.SQLITE_LOCKED_VTAB, "SQLITE_LOCKED_VTAB", "of virtual tables, which the catalog has not"}),
		codes(retry(""), driver.Unknown,
			coded{lib.SQLITE_PROTOCOL, "SQLITE_PROTOCOL", "lost a race for the WAL's locks too often in a row; the race passes"},
			coded{lib.SQLITE_SCHEMA, "SQLITE_SCHEMA", "the tables were changed under a prepared statement; the next try prepares anew"},
			coded{lib.SQLITE_INTERRUPT, "SQLITE_INTERRUPT", "we cut it short ourselves, at the catalog's deadline"},
			coded{lib.SQLITE_ABORT_ROLLBACK, "SQLITE_ABORT_ROLLBACK", "the transaction was rolled back under a statement that still read"},
			coded{lib.SQLITE_ERROR_RETRY, "SQLITE_ERROR_RETRY", "SQLite asks for the statement to be prepared again"},
			coded{lib.SQLITE_ERROR_SNAPSHOT, "SQLITE_ERROR_SNAPSHOT", "the wanted snapshot was checkpointed away; a new one is there"}))
}

func space() []driver.Entry {
	return slices.Concat(
		is(driver.ErrFull, codes(retry(remedyFull), driver.NotApplied,
			coded{lib.SQLITE_FULL, "SQLITE_FULL", "no room on the disk: measured to be rolled back whole, also at a COMMIT; it lands once there is some"})),
		is(driver.ErrFull, codes(retry(remedyFull+"; if there is room, "+remedyDisk), driver.Unknown,
			coded{lib.SQLITE_IOERR_SHMSIZE, "SQLITE_IOERR_SHMSIZE", "the WAL's shared memory, a file beside the database, can't grow: as a rule for want of room"})),
		codes(halt(remedyMemory), driver.Unknown,
			coded{lib.SQLITE_NOMEM, "SQLITE_NOMEM", "the process is short of memory, and what it did half is not to be built on"},
			coded{lib.SQLITE_IOERR_NOMEM, "SQLITE_IOERR_NOMEM", "short of memory in the middle of reading or writing"}),
		codes(callers(), driver.Unknown,
			coded{lib.SQLITE_TOOBIG, "SQLITE_TOOBIG", "the value of this call is larger than SQLite ever takes"}))
}

// disk are the failures of reading, writing and syncing: what is on the disk
// afterwards, only the next open can tell.
func disk() []driver.Entry {
	return codes(halt(remedyDisk), driver.Unknown,
		coded{lib.SQLITE_IOERR, "SQLITE_IOERR", "the disk or its file system failed"},
		coded{lib.SQLITE_IOERR_READ, "SQLITE_IOERR_READ", "a read failed, so that nothing can be judged"},
		coded{lib.SQLITE_IOERR_WRITE, "SQLITE_IOERR_WRITE", "a write failed; a part of it may be in the WAL"},
		coded{lib.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC", "a sync failed, and its frames are in the WAL: measured to be there after a crash. A second sync proves nothing"},
		coded{lib.SQLITE_IOERR_DIR_FSYNC, "SQLITE_IOERR_DIR_FSYNC", "the folder's sync failed: a new file's name may be lost"},
		coded{lib.SQLITE_IOERR_TRUNCATE, "SQLITE_IOERR_TRUNCATE", "a file could not be cut; an old tail may still be read"},
		coded{lib.SQLITE_IOERR_FSTAT, "SQLITE_IOERR_FSTAT", "the file's size can't be read"},
		coded{lib.SQLITE_IOERR_UNLOCK, "SQLITE_IOERR_UNLOCK", "a lock can't be given back; the end of the process does it"},
		coded{lib.SQLITE_IOERR_RDLOCK, "SQLITE_IOERR_RDLOCK", "the system refused a lock for reading, for no reason that passes"},
		coded{lib.SQLITE_IOERR_LOCK, "SQLITE_IOERR_LOCK", "the system refused a lock, for no reason that passes"},
		coded{lib.SQLITE_IOERR_CHECKRESERVEDLOCK, "SQLITE_IOERR_CHECKRESERVEDLOCK", "whether somebody has a lock can't be told"},
		coded{lib.SQLITE_IOERR_BLOCKED, "SQLITE_IOERR_BLOCKED", "no longer given by SQLite; it meant a lock in the way of a read"},
		coded{lib.SQLITE_IOERR_DELETE, "SQLITE_IOERR_DELETE", "a journal could not be deleted, so that a commit may be undone later"},
		coded{lib.SQLITE_IOERR_DELETE_NOENT, "SQLITE_IOERR_DELETE_NOENT", "a journal was not there any more: somebody else deletes SQLite's files"},
		coded{lib.SQLITE_IOERR_ACCESS, "SQLITE_IOERR_ACCESS", "whether a file is there can't be told"},
		coded{lib.SQLITE_IOERR_CLOSE, "SQLITE_IOERR_CLOSE", "a file could not be closed; what was written before may be lost"},
		coded{lib.SQLITE_IOERR_DIR_CLOSE, "SQLITE_IOERR_DIR_CLOSE", "a folder could not be closed"},
		coded{lib.SQLITE_IOERR_SHMOPEN, "SQLITE_IOERR_SHMOPEN", "the WAL's shared memory can't be opened"},
		coded{lib.SQLITE_IOERR_SHMLOCK, "SQLITE_IOERR_SHMLOCK", "no longer given by SQLite; it meant a lock of the WAL's shared memory"},
		coded{lib.SQLITE_IOERR_SHMMAP, "SQLITE_IOERR_SHMMAP", "the WAL's shared memory can't be mapped"},
		coded{lib.SQLITE_IOERR_SEEK, "SQLITE_IOERR_SEEK", "a place in the file can't be reached"},
		coded{lib.SQLITE_IOERR_MMAP, "SQLITE_IOERR_MMAP", "the file can't be mapped"},
		coded{lib.SQLITE_IOERR_GETTEMPPATH, "SQLITE_IOERR_GETTEMPPATH", "there is no folder for temporary files"},
		coded{lib.SQLITE_IOERR_CONVPATH, "SQLITE_IOERR_CONVPATH", "the path can't be turned into the system's form"},
		coded{lib.SQLITE_IOERR_VNODE, "SQLITE_IOERR_VNODE", "of another system's files: the file was changed from outside"},
		coded{lib.SQLITE_IOERR_AUTH, "SQLITE_IOERR_AUTH", "of another system's files: access was refused in the middle"},
		coded{lib.SQLITE_IOERR_BEGIN_ATOMIC, "SQLITE_IOERR_BEGIN_ATOMIC", "the file system's own transaction could not be begun"},
		coded{lib.SQLITE_IOERR_COMMIT_ATOMIC, "SQLITE_IOERR_COMMIT_ATOMIC", "the file system's own transaction could not be ended"},
		coded{lib.SQLITE_IOERR_ROLLBACK_ATOMIC, "SQLITE_IOERR_ROLLBACK_ATOMIC", "the file system's own transaction could not be undone"},
		coded{lib.SQLITE_IOERR_IN_PAGE, "SQLITE_IOERR_IN_PAGE", "a mapped page can't be read: the disk failed below it"},
		coded{lib.SQLITE_IOERR_BADKEY, "SQLITE_IOERR_BADKEY", "of encrypted files: the key is wrong, and ours have none"},
		coded{lib.SQLITE_IOERR_CODEC, "SQLITE_IOERR_CODEC", "of encrypted files: the cipher failed, and ours have none"})
}

// openings are files that can't be opened or written as they are.
func openings() []driver.Entry {
	const unknown = driver.Unknown
	return slices.Concat(
		codes(config(remedyOpen), unknown,
			coded{lib.SQLITE_CANTOPEN, "SQLITE_CANTOPEN", "the file can't be opened, or made: a folder that is missing, or rights"}),
		codes(config("give this process a folder for temporary files"), unknown,
			coded{lib.SQLITE_CANTOPEN_NOTEMPDIR, "SQLITE_CANTOPEN_NOTEMPDIR", "there is no folder for temporary files"}),
		codes(config(remedyFolder), unknown,
			coded{lib.SQLITE_CANTOPEN_ISDIR, "SQLITE_CANTOPEN_ISDIR", "the path is a folder's"}),
		codes(config("name the file by an absolute path that exists"), unknown,
			coded{lib.SQLITE_CANTOPEN_FULLPATH, "SQLITE_CANTOPEN_FULLPATH", "the path leads nowhere from here"}),
		codes(config("name the file by another path"), unknown,
			coded{lib.SQLITE_CANTOPEN_CONVPATH, "SQLITE_CANTOPEN_CONVPATH", "the path can't be turned into the system's form"}),
		codes(config("name the file itself, not a symbolic link"), unknown,
			coded{lib.SQLITE_CANTOPEN_SYMLINK, "SQLITE_CANTOPEN_SYMLINK", "two names for one file would have two locks"}),
		codes(halt("start anew: another program changed the file's WAL"), unknown,
			coded{lib.SQLITE_CANTOPEN_DIRTYWAL, "SQLITE_CANTOPEN_DIRTYWAL", "the WAL is not as it was left"}),
		codes(config(remedyMount), unknown,
			coded{lib.SQLITE_READONLY, "SQLITE_READONLY", "the file may be read only"},
			coded{lib.SQLITE_READONLY_RECOVERY, "SQLITE_READONLY_RECOVERY", "a WAL must be recovered, and this process may only read"},
			coded{lib.SQLITE_READONLY_CANTLOCK, "SQLITE_READONLY_CANTLOCK", "the WAL's shared memory may be read only, so that nobody can be locked out"},
			coded{lib.SQLITE_READONLY_ROLLBACK, "SQLITE_READONLY_ROLLBACK", "a journal must be rolled back, and this process may only read"},
			coded{lib.SQLITE_READONLY_CANTINIT, "SQLITE_READONLY_CANTINIT", "the WAL's shared memory must be set up, and this process may only read"}),
		codes(config(remedyRights), unknown,
			coded{lib.SQLITE_READONLY_DIRECTORY, "SQLITE_READONLY_DIRECTORY", "a journal or WAL can't be made in the folder"},
			coded{lib.SQLITE_PERM, "SQLITE_PERM", "this process may not do that to the file"},
			coded{lib.SQLITE_AUTH, "SQLITE_AUTH", "somebody's authorizer refuses the statement"},
			coded{lib.SQLITE_AUTH_USER, "SQLITE_AUTH_USER", "the user is not one of the file's"}),
		codes(config("use a file system that takes files of more than 2 GiB"), unknown,
			coded{lib.SQLITE_NOLFS, "SQLITE_NOLFS", "the file system takes no large files"}))
}

// damages are files that can't be trusted.
func damages() []driver.Entry {
	const unknown = driver.Unknown
	return slices.Concat(
		is(driver.ErrCorrupt, codes(broken(remedyCorrupt), unknown,
			coded{lib.SQLITE_CORRUPT, "SQLITE_CORRUPT", "the file's pages contradict each other, or the disk could not read one, of which SQLite says the same"},
			coded{lib.SQLITE_CORRUPT_VTAB, "SQLITE_CORRUPT_VTAB", "a virtual table is damaged, and the catalog has none"},
			coded{lib.SQLITE_CORRUPT_SEQUENCE, "SQLITE_CORRUPT_SEQUENCE", "the table of sequences is damaged"},
			coded{lib.SQLITE_CORRUPT_INDEX, "SQLITE_CORRUPT_INDEX", "an index and its table contradict each other"})),
		is(driver.ErrCorrupt, codes(broken("the file is no SQLite database: "+remedyCorrupt+", or name another file"), unknown,
			coded{lib.SQLITE_NOTADB, "SQLITE_NOTADB", "the file does not begin as a database does, or is encrypted"})),
		codes(broken(remedyCorrupt), unknown,
			coded{lib.SQLITE_FORMAT, "SQLITE_FORMAT", "no longer given by SQLite; it meant a damaged auxiliary file"},
			coded{lib.SQLITE_IOERR_CORRUPTFS, "SQLITE_IOERR_CORRUPTFS", "the file system says that it is damaged itself"},
			coded{lib.SQLITE_IOERR_DATA, "SQLITE_IOERR_DATA", "a page's checksum is wrong: it is not what was written"},
			coded{lib.SQLITE_IOERR_SHORT_READ, "SQLITE_IOERR_SHORT_READ", "the file ends in the middle of a page"}),
		codes(broken(remedyMoved), unknown,
			coded{lib.SQLITE_READONLY_DBMOVED, "SQLITE_READONLY_DBMOVED", "another file has the name: two histories of tokens may be under way"}))
}

// constraints are those of the catalog's own tables: no others are in its file,
// and an application's statements are never run through the driver.
func constraints() []driver.Entry {
	const refused = driver.NotApplied
	const ours = ": the file has the catalog's tables only, and no value of a caller's can break them while head and log agree; somebody changed them by hand"
	var damaged []coded
	for _, r := range []coded{
		{lib.SQLITE_CONSTRAINT, "SQLITE_CONSTRAINT", "a constraint does not hold"},
		{lib.SQLITE_CONSTRAINT_CHECK, "SQLITE_CONSTRAINT_CHECK", "a value is not allowed"},
		{lib.SQLITE_CONSTRAINT_FOREIGNKEY, "SQLITE_CONSTRAINT_FOREIGNKEY", "the row that is referred to does not exist"},
		{lib.SQLITE_CONSTRAINT_NOTNULL, "SQLITE_CONSTRAINT_NOTNULL", "a value is missing"},
		{lib.SQLITE_CONSTRAINT_PRIMARYKEY, "SQLITE_CONSTRAINT_PRIMARYKEY", "there is such a row already"},
		{lib.SQLITE_CONSTRAINT_UNIQUE, "SQLITE_CONSTRAINT_UNIQUE", "there is such a row already"},
		{lib.SQLITE_CONSTRAINT_ROWID, "SQLITE_CONSTRAINT_ROWID", "there is such a row already"},
		{lib.SQLITE_CONSTRAINT_DATATYPE, "SQLITE_CONSTRAINT_DATATYPE", "a value is of another type than its column"},
	} {
		r.why += ours
		damaged = append(damaged, r)
	}
	return slices.Concat(
		is(driver.ErrCorrupt, codes(broken(remedyCorrupt), refused, damaged...)),
		codes(bug(), refused,
			coded{lib.SQLITE_CONSTRAINT_COMMITHOOK, "SQLITE_CONSTRAINT_COMMITHOOK", "a hook refused the commit, and the driver sets none"},
			coded{lib.SQLITE_CONSTRAINT_TRIGGER, "SQLITE_CONSTRAINT_TRIGGER", "a trigger refused the change, and our tables have none"},
			coded{lib.SQLITE_CONSTRAINT_FUNCTION, "SQLITE_CONSTRAINT_FUNCTION", "a function of an extension refused it, and we load none"},
			coded{lib.SQLITE_CONSTRAINT_VTAB, "SQLITE_CONSTRAINT_VTAB", "a virtual table refused it, and the catalog has none"},
			coded{lib.SQLITE_CONSTRAINT_PINNED, "SQLITE_CONSTRAINT_PINNED", "a trigger deleted the row that it was called for, and our tables have none"}))
}

// mistakes are defects of the driver's or of SQLite's.
func mistakes() []driver.Entry {
	return codes(bug(), driver.Unknown,
		coded{lib.SQLITE_ERROR, "SQLITE_ERROR", "our statement can't be run: the tables are not ours, or the statement is wrong"},
		coded{lib.SQLITE_ERROR_MISSING_COLLSEQ, "SQLITE_ERROR_MISSING_COLLSEQ", "a collation is missing, and our tables use none"},
		coded{lib.SQLITE_ERROR_RESERVESIZE, "SQLITE_ERROR_RESERVESIZE", "a page keeps less room than a checksum needs, and we set none"},
		coded{lib.SQLITE_ERROR_KEY, "SQLITE_ERROR_KEY", "of encrypted files, and ours are not"},
		coded{lib.SQLITE_ERROR_UNABLE, "SQLITE_ERROR_UNABLE", "SQLite can't do what was asked, and we ask for nothing rare"},
		coded{lib.SQLITE_INTERNAL, "SQLITE_INTERNAL", "SQLite found itself where it should not be"},
		coded{lib.SQLITE_ABORT, "SQLITE_ABORT", "a callback asked for an end, and we set none"},
		coded{lib.SQLITE_MISUSE, "SQLITE_MISUSE", "SQLite was called against its contract"},
		coded{lib.SQLITE_RANGE, "SQLITE_RANGE", "a parameter was bound that the statement has not"},
		coded{lib.SQLITE_NOTFOUND, "SQLITE_NOTFOUND", "a file control that SQLite does not know"},
		coded{lib.SQLITE_MISMATCH, "SQLITE_MISMATCH", "a value is of another type than its column takes, and ours are fixed"},
		coded{lib.SQLITE_EMPTY, "SQLITE_EMPTY", "no longer given by SQLite"})
}

// notErrors are codes that say that all is well, or that something is worth a
// line in a log. Nobody returns them as errors.
func notErrors() []driver.Entry {
	return codes(bug(), driver.Unknown,
		coded{lib.SQLITE_OK, "SQLITE_OK", "an error that says there is none"},
		coded{lib.SQLITE_OK_LOAD_PERMANENTLY, "SQLITE_OK_LOAD_PERMANENTLY", "an extension stays loaded: no error, and we load none"},
		coded{lib.SQLITE_OK_SYMLINK, "SQLITE_OK_SYMLINK", "a word within SQLite that nobody else hears"},
		coded{lib.SQLITE_ROW, "SQLITE_ROW", "a row is there: no error"},
		coded{lib.SQLITE_DONE, "SQLITE_DONE", "all rows were there: no error"},
		coded{lib.SQLITE_NOTICE, "SQLITE_NOTICE", "for a log: no error"},
		coded{lib.SQLITE_NOTICE_RECOVER_WAL, "SQLITE_NOTICE_RECOVER_WAL", "for a log, of a WAL that was recovered: no error"},
		coded{lib.SQLITE_NOTICE_RECOVER_ROLLBACK, "SQLITE_NOTICE_RECOVER_ROLLBACK", "for a log, of a journal that was rolled back: no error"},
		coded{lib.SQLITE_NOTICE_RBU, "SQLITE_NOTICE_RBU", "for a log, of an extension that we do not load: no error"},
		coded{lib.SQLITE_WARNING, "SQLITE_WARNING", "for a log: no error"},
		coded{lib.SQLITE_WARNING_AUTOINDEX, "SQLITE_WARNING_AUTOINDEX", "for a log, of an index that was made on the way: no error"})
}
