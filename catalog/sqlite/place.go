package sqlite

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fencepost/fencepost/catalog/driver"
)

// SQLite finds the WAL and the file of its locks beside the database, by the
// database's name, and so do we our own. A database with two names has two sets
// of them, and two writers that never meet.

var (
	errFolder     = errors.New("this is a folder")
	errNotRegular = errors.New("this is no regular file")
	errHardLinked = errors.New("the file has more than one name, by hard links")
	errMounted    = errors.New("the file is mounted by itself, so that it has another name elsewhere")
	errLinked     = errors.New("the path leads to a file by another name than its own")
	errNoMounts   = errors.New("whether the file is mounted by itself can't be told")
)

const claimEnding = "-claim"

// sideEndings are the endings of the files beside a database, by SQLite and by us.
var sideEndings = [...]string{"-wal", "-shm", "-journal", claimEnding, newEnding}

// checkPlace refuses a file whose locks and WAL others would not share: one
// with a second name, or on a file system that is not known to lock. Files that
// are not there yet are well.
func (s *Store) checkPlace() error {
	return cmp.Or(s.checkDisk(), s.checkNames())
}

func (s *Store) checkNames() error {
	if err := checkName(s.path); err != nil {
		return err
	}
	for _, ending := range sideEndings {
		if err := checkName(s.path + ending); err != nil {
			return err
		}
	}
	return nil
}

// checkName refuses a file that has a second name.
func checkName(name string) error {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := checkFile(name, info); err != nil {
		return err
	}
	mounted, err := isMount(name)
	if err != nil {
		return err
	}
	if mounted {
		return fmt.Errorf("%w: %s", errMounted, name)
	}
	return nil
}

// checkFile refuses what Lstat alone shows to have a second name. It costs no
// call, so that every read and every write asks.
func checkFile(name string, info os.FileInfo) error {
	switch {
	case info.IsDir():
		return fmt.Errorf("%w: %s", errFolder, name)
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%w: %s is a symbolic link", errLinked, name)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: %s", errNotRegular, name)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink > 1 {
		return manyNames(name, uint64(stat.Nlink))
	}
	return nil
}

func manyNames(name string, links uint64) error {
	return fmt.Errorf("%w: %s has %d", errHardLinked, name, links)
}

// probePlace says whether the file is one that all processes lock alike.
func (s *Store) probePlace() driver.Finding {
	f := driver.Finding{Name: "file", Detail: "the database, and each file beside it, has one name"}
	if err := s.checkNames(); err != nil {
		f.Grade, f.Detail, f.Remedy = driver.Failure, err.Error(), cmp.Or(classify(err, false).Remedy, remedyRights)
	}
	return f
}

// resolve returns the absolute path without symbolic links, so that all
// processes agree on where the files beside it are, and whether the file itself
// was named by a link. Neither the file nor its folder need be there yet; a link
// that leads nowhere is refused when it is used. A path that leads to a file which
// has another name, or none, is refused: so may /proc/self/fd do.
func resolve(path string) (own string, linked bool, err error) {
	if !filepath.IsAbs(path) {
		dir, err := os.Getwd()
		if err != nil {
			return "", false, err
		}
		path = dir + "/" + path // and not cleaned: what is before ".." may be a link
	}
	path = strings.TrimRight(path, "/")
	dir, name := filepath.Split(path)
	folder, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return filepath.Clean(path), false, nil // there is no such folder yet
	}
	own = filepath.Join(folder, name)
	meant, err := os.Stat(path)
	if errors.Is(err, syscall.ELOOP) {
		return "", false, err
	}
	if err != nil {
		return own, false, nil // the first use says why, if it lasts
	}
	real, err := filepath.EvalSymlinks(own)
	if err != nil {
		real = own
	}
	if found, err := os.Lstat(real); err != nil || !os.SameFile(meant, found) {
		return "", false, fmt.Errorf("%w: %s is not %s", errLinked, path, real)
	}
	return real, real != own, nil
}
