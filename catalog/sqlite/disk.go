package sqlite

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/fencepost/fencepost/catalog/driver"
)

// SQLite in WAL mode needs locks, and memory that is shared, between all that
// can see the file. Local file systems have both by the kernel that mounts them;
// what is served by another program or host has what that gives it. So the ones
// that are known to be good are listed, and all others are refused.

var errFileSystem = errors.New("the file system is not known to keep SQLite's locks between all that can see the file")

// A trust says what is known of a file system.
type trust uint8

const (
	untrusted trust = iota // served by others, or not known
	inMemory               // locks well, and loses all when the machine stops
	onDisk
)

// A fileSystem is where a folder is.
type fileSystem struct {
	name  string // as people know it
	trust trust
	free  uint64 // bytes
}

// checkDisk refuses a file system that is not known to be good, unless the user
// has said that this one is.
func (s *Store) checkDisk() error {
	at, err := lookAt(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	return at.check(s.trusts)
}

func (at fileSystem) check(trusts bool) error {
	if at.trust == untrusted && !trusts {
		return fmt.Errorf("%w: %s", errFileSystem, at.name)
	}
	return nil
}

// probeDisk says whether the file system keeps what it is given, and whether
// its locks are known to be good.
func (s *Store) probeDisk() driver.Finding {
	at, err := lookAt(filepath.Dir(s.path))
	if err != nil {
		return driver.Finding{Name: "file system", Grade: driver.Failure, Detail: fmt.Sprintf("the folder of the file can't be looked at: %v", err),
			Remedy: cmp.Or(bySystem(err).Remedy, remedyRights)}
	}
	return at.judge(s.trusts)
}

func (at fileSystem) judge(trusts bool) driver.Finding {
	const little = 64 << 20
	f := driver.Finding{Name: "file system", Detail: fmt.Sprintf("%s, a local one, %d MiB free", at.name, at.free>>20)}
	err := at.check(trusts)
	switch {
	case err != nil:
		f.Grade, f.Detail, f.Remedy = driver.Failure, err.Error(), classify(err, false).Remedy
	case at.trust == untrusted:
		f.Grade, f.Detail = driver.Warning, fmt.Sprintf("%v: %s; it is used because filesystem=trusted was said", errFileSystem, at.name)
		f.Remedy = remedyDiskKind
	case at.trust == inMemory:
		f.Grade, f.Detail = driver.Warning, at.name+": the file is in memory, and does not survive a restart of the machine"
		f.Remedy = "put the file on a disk"
	case at.free < little:
		f.Grade, f.Remedy = driver.Warning, remedyFull
	}
	return f
}
