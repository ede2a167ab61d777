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

// refusals are what the functions in schema fencepost raise, for the table: those of
// guards, and those of package work/pgwork. They go to the application, whose
// transaction was refused.
func refusals() (all []driver.Entry) {
	for _, r := range [][4]string{
		{stateStale, "a guard refused a stale token", "a newer token was claimed", "stop writing; postgres.Refusal returns a *fence.Error, which the catalog's Explain proves"},
		{stateMissing, "a guard got no token", "the session gave no token", "give it one by SET fencepost.token, or begin by postgres.Begin"},
		{stateMalformed, "a guard got no valid token", "what the session gave is not of the form g7.e41", "correct the writer"},
		{stateNeverIssued, "a guard got a token that nobody issued", "no claim of this catalog has installed that token, or the database has lost claims", "check that catalog and database of the writer are the holder's"},
		{stateCopied, "a guard of a copied database", "the database is a copy in which nobody has claimed since", "correct the writer's database, or run fencepost restored"},
		{stateUnclaimed, "a guard of an unclaimed catalog", "nobody has claimed the catalog since guards were installed", "let a process claim it"},
		{"WRK01", "a request for a job is not valid", "its kind, key, priority, time, generation, member or catalog is none", "see the HINT"},
		{"WRK02", "a request for a job is too large", "its key or payload is above its limit", "keep the payload elsewhere, and enqueue where it is"},
		{"WRK03", "a request for a job of an unclaimed catalog", "no process has ever claimed a catalog of that name", "correct the name, or let a process claim the catalog first"},
		{"WRK04", "too many requests with a key in one transaction", "each locks its key until the transaction ends", "enqueue further ones with ordered => false, or one job that enqueues them"},
		{"WRK05", "a wake-up inside a transaction", "fencepost.wake was called in a transaction that has written", "call it behind the commit"},
	} {
		class := callers()
		class.Remedy = r[3]
		e := driver.Line(r[0], r[1], class, driver.NotApplied, r[2]+"; the transaction was rolled back")
		e.Match = func(err error) bool { return sqlState(err) == r[0] }
		all = append(all, e)
	}
	return all
}

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
