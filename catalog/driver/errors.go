package driver

import (
	"errors"

	"github.com/fencepost/fencepost/exitcodes"
)

var (
	// ErrConflict means that a condition did not hold and nothing was
	// written. Why, says the newest head.
	ErrConflict = errors.New("the condition did not hold")

	// ErrCorrupt means that the store holds something that no version of this
	// library wrote, or lacks something that it wrote.
	ErrCorrupt = errors.New("the catalog is corrupt")

	// ErrCompacted means that a record was deleted, since a snapshot stands
	// for it.
	ErrCompacted = errors.New("the log was compacted")

	// ErrTooLarge means that a record or note is above the store's limits.
	// Nothing was written.
	ErrTooLarge = errors.New("above the store's limit")

	// ErrFull means that the store takes no more data. Whether this write was
	// the last one that it took, the outcome says.
	ErrFull = errors.New("the store is full")

	// ErrBlocked means that another process stood in the way of a claim until
	// its time was over. Nothing was written.
	ErrBlocked = errors.New("the claim was blocked")
)

// An Outcome says whether a write that failed may have landed.
type Outcome uint8

const (
	// NotApplied: the write has not landed and never will.
	NotApplied Outcome = iota

	// Unknown: the write may have landed, or may land later.
	Unknown
)

func (o Outcome) String() string {
	if o == NotApplied {
		return "not applied"
	}
	return "unknown"
}

// A Class is what a driver's table says of an error.
type Class struct {
	Disposition exitcodes.Disposition
	Outcome     Outcome        // of the write; NotApplied for reads
	Code        exitcodes.Code // where it isn't the disposition's own; zero otherwise
	Remedy      string         // what whoever is paged should do; empty where nothing helps but waiting
}

// An Error is an error of a store, classified.
type Error struct {
	Class
	Store string // as Store.String names it
	Op    string // the method, in lower case
	Err   error
}

func (e *Error) Error() string {
	text := e.Store + ": " + e.Op + ": " + e.Err.Error()
	if e.Remedy != "" {
		text += ": " + e.Remedy
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Disposition says what the process must do. See package exitcodes.
func (e *Error) Disposition() exitcodes.Disposition { return e.Class.Disposition }

// ExitCode returns the status of a process that ends because of e.
func (e *Error) ExitCode() exitcodes.Code {
	if e.Code != 0 {
		return e.Code
	}
	return e.Class.Disposition.Code()
}

// OutcomeOf returns what err says of the write it was returned for. An error
// that no driver classified leaves it unknown.
func OutcomeOf(err error) Outcome {
	var e *Error
	if errors.As(err, &e) {
		return e.Outcome
	}
	return Unknown
}
