package memory

import (
	"context"
	"errors"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

var (
	errClosed   = errors.New("the handle is closed")
	errEnded    = errors.New("the claim is no longer under way")
	errInjected = errors.New("an injected fault")
	errMisuse   = errors.New("the call breaks the contract")
)

// classes is the table of every error that this store has. What isn't in it
// would be a mistake in this package.
func classes() []struct {
	is    error
	class driver.Class
} {
	return []struct {
		is    error
		class driver.Class
	}{
		{driver.ErrConflict, driver.Class{}},
		{driver.ErrCompacted, driver.Class{}},
		{driver.ErrCorrupt, driver.Class{Disposition: exitcodes.Panic}},
		{driver.ErrTooLarge, driver.Class{}},
		{driver.ErrFull, driver.Class{Disposition: exitcodes.Retry, Remedy: "call Fill(false)"}},
		{driver.ErrBlocked, driver.Class{Disposition: exitcodes.Retry}},
		{errClosed, driver.Class{Remedy: "open another handle"}},
		{errEnded, driver.Class{Disposition: exitcodes.Retry}},
		{errInjected, driver.Class{Disposition: exitcodes.Retry}},
		{errMisuse, driver.Class{Disposition: exitcodes.Panic}},
		{context.DeadlineExceeded, driver.Class{Disposition: exitcodes.Retry}},
		{context.Canceled, driver.Class{}},
	}
}

func classify(err error) driver.Class {
	for _, row := range classes() {
		if errors.Is(err, row.is) {
			return row.class
		}
	}
	return driver.Class{Disposition: exitcodes.Panic}
}

// fail returns err, classified. Nothing was written.
func (s *Store) fail(op string, err error) error {
	return &driver.Error{Class: classify(err), Store: s.String(), Op: op, Err: err}
}

// lose returns the error of a write whose outcome an injected fault hides.
func (s *Store) lose(op string) error {
	class := classify(errInjected)
	class.Outcome = driver.Unknown
	return &driver.Error{Class: class, Store: s.String(), Op: op, Err: errInjected}
}
