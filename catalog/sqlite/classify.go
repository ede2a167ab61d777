package sqlite

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/fencepost/fencepost/catalog/driver"
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
	switch codeOf(err) {
	case lib.SQLITE_CANTOPEN, lib.SQLITE_READONLY, lib.SQLITE_READONLY_DIRECTORY:
		err = whyNotOpen(s.path, err)
	}
	if errors.Is(err, errMoved) {
		gone := fmt.Errorf("%w, as an earlier call has found", errMoved)
		s.gone.CompareAndSwap(nil, &gone)
	}
	m := errorTable.Of(err)
	if is := m.Entry.Is; is != nil && !errors.Is(err, is) {
		err = fmt.Errorf("%w: %w", is, err)
	}
	return &driver.Error{Class: m.Class(committing), Store: s.String(), Op: op, Err: err}
}

// busy reports whether err is a lock of another connection, which passes.
func busy(err error) bool {
	switch codeOf(err) & 0xff {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_PROTOCOL:
		return true
	}
	return errors.Is(err, errWanted) || errors.Is(err, errReaders) || errors.Is(err, errShown)
}

// codeOf returns SQLite's extended result code, or -1 where err has none.
func codeOf(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return -1
}

// classify says what an error means. Errors is the table that it goes by.
func classify(err error, committing bool) driver.Class {
	return errorTable.Of(err).Class(committing)
}
