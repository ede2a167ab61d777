package sqlite

import (
	"errors"
	"runtime/debug"
	"slices"
)

// Each library of SQLite keeps its own account of which files its process has open
// and locked, and so closes a file, and drops the locks, that another one of the same
// process has. A library opens the -shm of a database once, for however many
// connections. So a process that has it open twice has two libraries on the file, or
// other code that may not touch it.

var errTwoLibraries = errors.New("this process has the -shm of the file open more than once: another library of SQLite, or other code, uses it")

// errOtherLibrary means that our library would be the second one on the file of a
// register.
var errOtherLibrary = errors.New("this process has the file open, perhaps by the other library of SQLite that it has")

// libraries are the modules that bring a SQLite of their own along.
var libraries = []string{
	"github.com/mattn/go-sqlite3", "github.com/ncruces/go-sqlite3", "crawshaw.io/sqlite",
	"github.com/mutecomm/go-sqlcipher/v4", "github.com/mutecomm/go-sqlcipher", "github.com/tursodatabase/go-libsql",
}

// otherLibrary reports whether another library of SQLite may be part of this process.
// If not, the transactions of a [DB] need not look whether one has opened the catalog's
// file. A claim, a new connection and [Guard] always look.
func otherLibrary() bool {
	info, ok := debug.ReadBuildInfo()
	return !ok || mapped("libsqlite") || slices.ContainsFunc(info.Deps, func(m *debug.Module) bool {
		return slices.Contains(libraries, m.Path)
	})
}
