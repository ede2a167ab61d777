package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

var (
	errMoved       = errors.New("the file is no longer the one that was opened")
	errMovedCommit = errors.New("the commit went into a file that no longer has its name")
)

// openFiles are the files that a connection has open: the database, its WAL and
// the file of its locks. SQLite looks at their names no more; a file that was
// removed or replaced meanwhile is seen by nobody else, nor are its locks.
type openFiles []openFile

type openFile struct {
	name     string
	dev, ino uint64
	info     os.FileInfo
}

// namedFiles returns the files that have the names now. SQLite has no reason to
// change them while a connection is open.
func namedFiles(path string) (files openFiles, err error) {
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) && name != path {
			continue // the database was not in WAL mode when it was opened
		}
		if err != nil {
			return nil, err
		}
		f := openFile{name: name, info: info}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			f.dev, f.ino = uint64(stat.Dev), uint64(stat.Ino)
		}
		files = append(files, f)
	}
	return files, nil
}

// moved returns an error where another file, or none, has a name.
func (files openFiles) moved() error {
	for _, f := range files {
		if _, err := f.stat(); err != nil {
			return err
		}
	}
	return nil
}

// unsound returns an error where a file has lost its name, or has a second one.
func (files openFiles) unsound() error {
	for _, f := range files {
		links, err := f.stat()
		if err != nil {
			return err
		}
		if links > 1 {
			return manyNames(f.name, links)
		}
	}
	return nil
}

// stat returns how many names the file has. Every write and every reading of
// the head asks, so that it does without os.Lstat, which costs twice as much.
func (f *openFile) stat() (links uint64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(f.name, &st); err != nil || uint64(st.Dev) != f.dev || st.Ino != f.ino {
		return 0, fmt.Errorf("%w: %s", errMoved, f.name)
	}
	return uint64(st.Nlink), nil
}
