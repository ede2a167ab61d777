package postgres

import (
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// sent says how far a write had come when its error arose. It alone decides
// whether the outcome can be unknown: what pgx says of an error
// (pgconn.SafeToRetry) is not asked, since it calls a COMMIT unsent whose
// connection broke while it waited for the answer.
type sent uint8

const (
	notSent       sent = iota // a read, or a write that nothing was sent of that could land
	statementSent             // a statement that commits by itself
	commitSent                // COMMIT
)

var errEnded = errors.New("the claim has ended")

func retry(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Retry, Remedy: remedy}
}

func halt(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Halt, Remedy: remedy}
}

func misconfigured(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config, Remedy: remedy}
}

func broken(remedy string) driver.Class {
	return driver.Class{Disposition: exitcodes.Panic, Remedy: remedy}
}

func callers() driver.Class { return driver.Class{} }

const (
	lookAtServer = "look at the server's log"
	report       = "this is a defect of this library or of the server: report it"
)

// classify says what an error means, and which sentinel of package driver it
// is besides (or nil). Errors is the table that it goes by.
func classify(err error, sent sent) (driver.Class, error) {
	m := meaningOf(err)
	class := m.Class(sent != notSent)
	// An answer of severity ERROR to the write itself means that the server
	// goes on and has rolled it back; any other ended the session.
	if pg, ok := answerOf(err); ok && sent != notSent && severity(pg) != "ERROR" {
		class.Outcome = driver.Unknown
	}
	return class, m.Entry.Is
}

// meaningOf asks the table. If no connection to any of several hosts could be
// made, pgx joins an error of each, and the table's order must not decide between
// hosts. One host that may come back is worth waiting for, whatever the others
// say; new configuration is needed if all of them say so. An error of this
// driver's about the connection as a whole belongs to no host.
func meaningOf(err error) driver.Meaning {
	whole := errorTable.Of(err)
	hosts := ofHosts(err)
	ofHost := slices.ContainsFunc(hosts, func(host error) bool { return errorTable.Of(host).Family == familyOfOurs })
	if len(hosts) < 2 || whole.Family == familyOfOurs && !ofHost {
		return whole
	}
	best := errorTable.Of(hosts[0])
	for _, host := range hosts[1:] {
		if m := errorTable.Of(host); hope(m) > hope(best) {
			best = m
		}
	}
	return best
}

// ofHosts returns the errors of each attempt to connect in err.
func ofHosts(err error) []error {
	var failed *pgconn.ConnectError
	if !errors.As(err, &failed) {
		return nil
	}
	for inner := failed.Unwrap(); inner != nil; inner = errors.Unwrap(inner) {
		if joined, ok := inner.(interface{ Unwrap() []error }); ok {
			return joined.Unwrap()
		}
	}
	return nil
}

// hope orders what errors of several hosts ask for.
func hope(m driver.Meaning) int {
	switch class := m.Class(false); {
	case class.Disposition == exitcodes.Retry:
		return 3
	case class.Disposition == exitcodes.None: // nobody wants the connection any more
		return 2
	case class.Code != exitcodes.Config:
		return 1
	}
	return 0
}

func severity(pg *pgconn.PgError) string {
	if pg.SeverityUnlocalized != "" {
		return pg.SeverityUnlocalized
	}
	return pg.Severity
}

// undefined reports whether the server knows no such table or schema.
func undefined(err error) bool {
	state := sqlState(err)
	return state == "42P01" || state == "3F000"
}

// poolerBetween reports whether a prepared statement met a session that is not
// the one it was prepared in.
func poolerBetween(err error) bool {
	state := sqlState(err)
	return state == "26000" || state == "42P05"
}
