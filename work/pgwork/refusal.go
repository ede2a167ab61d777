package pgwork

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/work"
)

// The SQLSTATEs of the functions' own refusals. PostgreSQL leaves the classes that
// begin with a letter from I to Z to others.
const (
	stateInvalid   = "WRK01"
	stateTooLarge  = "WRK02"
	stateUnclaimed = "WRK03"
	stateManyKeys  = "WRK04"
	stateInside    = "WRK05"
)

// SQLSTATEs of PostgreSQL's own.
const (
	noFunction = "42883"
	noSchema   = "3F000"
	noRight    = "42501"
	readOnly   = "25006"
)

var (
	// ErrUnclaimed means that no process has ever claimed the catalog, so that nobody
	// knows whether its name is right.
	ErrUnclaimed = errors.New("no process has ever claimed the catalog")

	// ErrManyKeys means that the transaction has enqueued as many jobs with a key as
	// it may lock.
	ErrManyKeys = errors.New("too many jobs with a key in one transaction")

	// ErrNotInstalled means that the database lacks the functions: see [Install].
	ErrNotInstalled = errors.New("the functions that enqueue are not installed in this database")

	// ErrNoRight means that the role may not call the functions, or not install them.
	ErrNoRight = errors.New("this role lacks a right")

	// ErrReadOnly means that the server takes no writes: it is a standby, or was
	// demoted.
	ErrReadOnly = errors.New("this server or transaction takes no writes")
)

// explained returns err with what it means and what to do, if that is known.
func explained(err error) error {
	switch sqlState(err) {
	case stateInvalid:
		return refused(work.ErrInvalid, err)
	case stateTooLarge:
		return refused(work.ErrTooLarge, err)
	case stateUnclaimed:
		return refused(ErrUnclaimed, err)
	case stateManyKeys:
		return refused(ErrManyKeys, err)
	case stateInside:
		return refused(ErrInside, err)
	case noFunction, noSchema:
		return fmt.Errorf("%w: run fencepost work install, or pgwork.Install, as the owner of schema fencepost; if that was done, this is another database than the catalog's: %w", ErrNotInstalled, err)
	case noRight:
		return fmt.Errorf("%w: run fencepost work install --enqueuer ROLE as the owner of schema fencepost: it does grant usage on schema fencepost, and execute on its functions enqueue and wake: %w", ErrNoRight, err)
	case readOnly:
		return fmt.Errorf("%w: connect to the primary, such as by target_session_attrs=read-write, and begin the transaction anew: %w", ErrReadOnly, err)
	}
	return err
}

// refused returns an answer of the functions with its remedy.
func refused(is, err error) error {
	var answer *pgconn.PgError
	if errors.As(err, &answer) && answer.Hint != "" {
		return fmt.Errorf("%w: %w: %s", is, err, answer.Hint)
	}
	return fmt.Errorf("%w: %w", is, err)
}

func sqlState(err error) string {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer.Code
	}
	return ""
}
