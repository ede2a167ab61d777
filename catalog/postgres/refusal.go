package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// The SQLSTATEs of a guard's refusals. PostgreSQL leaves the classes that begin
// with a letter from I to Z to others.
const (
	stateStale       = "TKN01" // a newer token was claimed
	stateMissing     = "TKN02" // the session gave no token
	stateMalformed   = "TKN03" // what it gave is no token
	stateNeverIssued = "TKN04" // no claim of this catalog has installed that token
	stateCopied      = "TKN05" // the database is a copy in which nobody has claimed since
	stateUnclaimed   = "TKN06" // nobody has claimed this catalog since guards were installed
)

var (
	// ErrNoGuards means that the database has no guards, or that nobody has claimed
	// this catalog since they were installed.
	ErrNoGuards = errors.New("this catalog has no guard")

	// ErrCopied means that the database is a copy, such as a restored dump, in
	// which nobody has claimed yet.
	ErrCopied = errors.New("this database is a copy in which nobody has claimed yet")
)

// Refusal returns a guard's refusal that err holds, of pgx or of lib/pq, or nil if
// err is none: a *[fence.Error] if a newer token was claimed, a *[fence.TokenError]
// if the token was missing, malformed or never issued, else a *[driver.Error] of
// status 78 that wraps [ErrCopied] or [ErrNoGuards]. A *fence.Error of a guard is a hint: pass it to
// catalog.Catalog.Explain, or let leader.Leader do it.
func Refusal(err error) error {
	var known *fence.Error
	var token *fence.TokenError
	var fault *driver.Error
	switch {
	case errors.As(err, &known) && known.Guard != "":
		return known
	case errors.As(err, &token):
		return token
	case errors.As(err, &fault) && (errors.Is(fault, ErrCopied) || errors.Is(fault, ErrNoGuards)):
		return fault
	}
	var answer interface{ SQLState() string }
	if !errors.As(err, &answer) {
		return nil
	}
	d := detailOf(err)
	switch answer.SQLState() {
	case stateStale:
		return &fence.Error{Held: parsed(d.Held), Current: parsed(d.Current), By: d.Holder, Guard: d.guard()}
	case stateMissing:
		return &fence.TokenError{Guard: d.guard(), Err: fence.ErrMissing}
	case stateMalformed:
		return &fence.TokenError{Guard: d.guard(), Token: d.Held, Err: fence.ErrMalformed}
	case stateNeverIssued:
		return &fence.TokenError{Guard: d.guard(), Token: d.Held, Err: fence.ErrNeverIssued}
	case stateCopied:
		return unguarded(d.guard(), ErrCopied)
	case stateUnclaimed:
		return unguarded(d.guard(), ErrNoGuards)
	}
	return nil
}

// unguarded is an error that only a person can mend.
func unguarded(guard string, err error) error {
	class, _ := classify(err, notSent)
	return &driver.Error{Class: class, Store: guard, Op: "guard", Err: err}
}

// guardError returns the refusal that err holds, or err as it is. A database
// without guards has no such function.
func guardError(err error) error {
	if refused := Refusal(err); refused != nil {
		return refused
	}
	var answer interface{ SQLState() string }
	if errors.As(err, &answer) && (answer.SQLState() == "42883" || answer.SQLState() == "3F000") {
		return unguarded("postgres", fmt.Errorf("%w: %w", ErrNoGuards, err))
	}
	return err
}

// A detail is what the guard says of a refusal, as JSON.
type detail struct {
	Catalog string       `json:"catalog"`
	Held    string       `json:"held"`
	Current string       `json:"current"`
	Holder  fence.Holder `json:"holder"`
}

func (d detail) guard() string {
	name, register := strings.CutPrefix(d.Catalog, registerPrefix)
	return guard{catalog: name, register: register}.String()
}

// detailOf reads the DETAIL of an answer, as pgx or lib/pq have it. What can't be
// read is left out: the SQLSTATE decides.
func detailOf(err error) (d detail) {
	var text string
	var fromPgx *pgconn.PgError
	var fromPq interface{ Get(field byte) string }
	switch {
	case errors.As(err, &fromPgx):
		text = fromPgx.Detail
	case errors.As(err, &fromPq):
		text = fromPq.Get('D')
	}
	_ = json.Unmarshal([]byte(text), &d)
	return d
}

func parsed(text string) fence.Token {
	t, _ := fence.Parse(text) // the zero token if it can't be read
	return t
}
