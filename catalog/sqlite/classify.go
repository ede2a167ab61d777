package sqlite

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

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
	return errors.Is(err, errWanted) || errors.Is(err, errReaders)
}

// codeOf returns SQLite's extended result code, or -1 where err has none. Of other
// libraries than modernc's it knows those whose errors are like mattn's or ncruces's.
func codeOf(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return foreignCode(err)
}

// foreignCode returns the code in an error of another library, whose type is
// sqlite3.Error, by the fields or the methods that it has: whoever links this package does
// not compile that library.
func foreignCode(err error) int {
	if v := reflect.Indirect(reflect.ValueOf(err)); v.Kind() == reflect.Struct && v.Type().Name() == "Error" {
		code, extended := v.FieldByName("Code"), v.FieldByName("ExtendedCode")
		if code.IsValid() && code.CanInt() && extended.IsValid() && extended.CanInt() {
			return int(extended.Int())
		}
	}
	if v := reflect.ValueOf(err); v.IsValid() && strings.Contains(reflect.Indirect(v).Type().PkgPath(), "sqlite") {
		if code := max(codeBy(v.MethodByName("ExtendedCode")), codeBy(v.MethodByName("Code"))); code >= 0 { // an extended one is the primary one and more
			return code
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return foreignCode(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if code := foreignCode(one); code >= 0 {
				return code
			}
		}
	}
	return -1
}

// codeBy returns what a method without arguments answers, or -1 if that is no number.
func codeBy(method reflect.Value) int {
	if !method.IsValid() || method.Type().NumIn() != 0 || method.Type().NumOut() != 1 {
		return -1
	}
	switch code := method.Call(nil)[0]; {
	case code.CanInt():
		return int(code.Int())
	case code.CanUint():
		return int(code.Uint())
	}
	return -1
}

// classify says what an error means. Errors is the table that it goes by.
func classify(err error, committing bool) driver.Class {
	return errorTable.Of(err).Class(committing)
}
