package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/internal/ownfile"
	"github.com/fencepost/fencepost/internal/step"
)

// A new database is written under another name and gets its own by a rename, so
// that a process that dies meanwhile leaves no part of one. It holds the schema
// and is in WAL mode already: no journal, which a reader could not roll back, is
// ever needed.
//
// The file also says that no claim is missing from it: see whole.go.

// newEnding is the ending of a new database's name until it is written.
const newEnding = "-new"

// create makes the database at path, if there is none yet or an empty file. Its
// -claim file, which it returns, is locked meanwhile, so that one process does
// this at a time.
func create(ctx context.Context, path string) (claim *os.File, err error) {
	like, err := ownfile.Like(path)
	if err != nil {
		return nil, err
	}
	if claim, err = lockToCreate(path, like); err != nil {
		return nil, err
	}
	defer func() {
		_ = unix.Flock(int(claim.Fd()), unix.LOCK_UN) // can't fail on an open file
		if err != nil {
			_ = claim.Close() // the first error says more
		}
	}()
	if absent, err := isAbsent(path); err != nil || !absent {
		return claim, err
	}
	_, missing := os.Lstat(path)
	part := path + newEnding
	// What is left of a process that died here, and of a database that has gone.
	for _, name := range []string{part, path + "-journal"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return claim, err
		}
	}
	f, err := like.Create(part)
	if err != nil {
		return claim, err
	}
	step.Reach(ctx, step.FileCreated)
	if err := fill(ctx, f); err != nil {
		return claim, ownfile.Discard(f, err)
	}
	if err := f.Close(); err != nil {
		return claim, err
	}
	step.Reach(ctx, step.FileWritten)
	if err := publish(part, path, missing == nil); err != nil {
		return claim, err
	}
	step.Reach(ctx, step.FileNamed)
	return claim, syncFolder(path)
}

// publish gives a new database its name, in place of an empty file that was
// there before. A file that has come since stays: other programs lock no -claim
// file to create one, nor do older builds, and they may have written to it.
func publish(part, path string, replace bool) error {
	if replace {
		return os.Rename(part, path)
	}
	err := ownfile.RenameNew(part, path)
	if errors.Is(err, fs.ErrExist) {
		return os.Remove(part)
	}
	return err
}

// lockToCreate opens the -claim file of a database that is not there yet, and
// locks it.
func lockToCreate(path string, like ownfile.Making) (*os.File, error) {
	claim, err := ownfile.OpenLock(path+claimEnding, like.AsLock())
	if err != nil {
		return nil, err
	}
	if err := flock(claim, unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, claim.Close())
	}
	return claim, nil
}

// isAbsent reports whether there is no database at path, or an empty file, which
// this process may write.
func isAbsent(path string) (bool, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, err
	case info.Size() > 0:
		return false, nil
	default:
		if err := unix.Access(path, unix.R_OK|unix.W_OK); err != nil {
			return false, &fs.PathError{Op: "access", Path: path, Err: err}
		}
	}
	err = checkAbsent(path)
	if errors.Is(err, errAppeared) {
		return false, nil
	}
	return true, err
}

// fill writes an empty catalog to f, and syncs it.
func fill(ctx context.Context, f *os.File) error {
	image, err := emptyCatalog(ctx)
	if err != nil {
		return err
	}
	if _, err := f.Write(image); err != nil {
		return err
	}
	return f.Sync()
}

// emptyCatalog returns what a database is in whose catalog nothing was written
// yet.
func emptyCatalog(ctx context.Context) (image []byte, err error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, createSQL); err != nil {
		return nil, err
	}
	err = conn.Raw(func(c any) (err error) {
		serializer, ok := c.(interface{ Serialize() ([]byte, error) })
		if !ok {
			return errDriver
		}
		image, err = serializer.Serialize()
		return err
	})
	if err != nil {
		return nil, err
	}
	image[writeVersion], image[readVersion] = inWALMode, inWALMode
	return image, nil
}

// What SQLite's file format says of the header.
const (
	writeVersion = 18
	readVersion  = 19
	inWALMode    = 2
)

// syncFolder makes the name of a new file durable.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
