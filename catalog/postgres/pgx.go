package postgres

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/puddle/v2"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/neterr"
)

const checkDSN = "check sslmode, password and authentication in the DSN and in the server's pg_hba.conf"

// ofPgx are the errors of the client that decide by themselves.
func ofPgx() driver.Family {
	const unknown, refused = driver.Unknown, driver.NotApplied
	const sessionAttrs = "let target_session_attrs in the DSN ask for a server that takes writes"
	is := neterr.Is
	return driver.Family{
		Name: "pgx", Source: "the errors of pgx v5, pgconn and pgproto3, and of its pool, puddle",
		Entries: []driver.Entry{
			is(pgx.ErrTxCommitRollback, "pgx.ErrTxCommitRollback", retry(""), refused, "the server answered COMMIT by ROLLBACK: nothing of it will ever land"),
			is(pgx.ErrTxClosed, "pgx.ErrTxClosed", broken(report), unknown, "a transaction was used after its end, which only a defect of ours does"),
			is(pgx.ErrNoRows, "pgx.ErrNoRows", broken(report), unknown, "our statements that read a row always have one to give"),
			is(pgx.ErrTooManyRows, "pgx.ErrTooManyRows", broken(report), unknown, "our statements never ask for exactly one row of many"),
			is(pgtype.ErrScanTargetTypeChanged, "pgtype.ErrScanTargetTypeChanged", broken(report), unknown, "a row was read into something else than the one before"),
			neterr.As[pgx.ScanArgError]("pgx.ScanArgError", "a column can't be read", nil, broken(report), unknown, "a column is not of the type that our schema gave it"),
			is(pgconn.ErrReadOnlyConnection, "pgconn.ErrReadOnlyConnection", retry("let the DSN lead to the primary"), unknown, "the DSN asks for a server that takes writes, and this is a standby: a fail-over ends that"),
			is(pgconn.ErrStandbyConnection, "pgconn.ErrStandbyConnection", retry("let the DSN lead to the primary"), unknown, "the DSN asks for the primary, and this is a standby: a fail-over ends that"),
			is(pgconn.ErrReadWriteConnection, "pgconn.ErrReadWriteConnection", misconfigured(sessionAttrs), unknown, "the DSN asks for a server that takes no writes, and a catalog needs one that does"),
			is(pgconn.ErrPrimaryConnection, "pgconn.ErrPrimaryConnection", misconfigured(sessionAttrs), unknown, "the DSN asks for a standby, and a catalog needs the primary"),
			neterr.As[*pgconn.NotPreferredError]("pgconn.NotPreferredError", "server is not of the preferred kind", nil, retry(""), unknown, "none of the DSN's hosts is what it prefers; after a fail-over one is"),
			neterr.As[*pgconn.ParseConfigError]("pgconn.ParseConfigError", "cannot parse the DSN", nil, misconfigured("correct the DSN: "+dsnForm), unknown, "only another DSN helps"),
			is(puddle.ErrClosedPool, "puddle.ErrClosedPool", callers(), unknown, "the caller closed the pool that it gave"),
			is(puddle.ErrNotAvailable, "puddle.ErrNotAvailable", retry("raise the pool's pool_max_conns"), unknown, "no connection of the pool is free for now"),
			named("pgconn.sslCertModeError", "sslcertmode and certificate contradict", misconfigured(remedies.TLS), "the server asked for a certificate that the DSN withholds, or the reverse"),
			neterr.As[*pgproto3.ExceededMaxBodyLenErr]("pgproto3.ExceededMaxBodyLenErr", "a message is too long", nil,
				misconfigured("raise the largest message of the connection's configuration"), unknown, "the answer is longer than the configuration lets pgx read"),
		},
	}
}

// aroundPgx are the errors of the client that wrap others: these decide first.
func aroundPgx() driver.Family {
	lost := neterr.Is(pgconn.ErrConnClosed, "pgconn.ErrConnClosed", retry(""), driver.Unknown,
		"the connection is gone. pgx says so, and calls it safe to try again, also of a COMMIT that had reached the server")
	late := driver.Line("pgconn.Timeout", "timeout", retry(""), driver.Unknown, "pgx ended the connection when its time was over")
	late.Match = pgconn.Timeout
	return driver.Family{
		Name: "pgx around others", Source: "the errors of pgconn and pgproto3 that wrap others",
		Entries: []driver.Entry{
			lost, late,
			named("pgconn.errTimeout", "timeout", retry(""), "pgx ended the connection when its time was over"),
			named("pgconn.contextAlreadyDoneError", "context already done", retry(""), "the time was over before anything was asked"),
			named("pgproto3.writeError", "write failed", retry(""), "the connection broke while something was sent"),
			named("pgconn.connLockError", "conn busy", broken(report), "one connection was used by two at once, which only a defect of ours does"),
			neterr.As[*pgconn.ConnectError]("pgconn.ConnectError", "failed to connect", nil, misconfigured(checkDSN), driver.Unknown,
				"refused by one side over how to speak: were it the network or the server's answer, an earlier entry had known it"),
			named("pgconn.perDialConnectError", "failed to connect to one host", misconfigured(checkDSN), "as for pgconn.ConnectError, of one host of several"),
			neterr.As[pgx.ErrPreprocessingBatch]("pgx.ErrPreprocessingBatch", "a batch can't be prepared", nil, broken(report), driver.Unknown, "our statements are fixed, and no argument of theirs fails to be written; a connection that breaks meanwhile is known by an earlier entry"),
			neterr.As[*pgconn.PrepareError]("pgconn.PrepareError", "a statement can't be prepared", nil, broken(report), driver.Unknown, "our statements are fixed, and it is no answer of the server's"),
			named("pgproto3.invalidMessageLenErr", "invalid message length", broken("find out what stands between here and the server: the bytes are not PostgreSQL's"), "what came is no message: something changes bytes on their way"),
			named("pgproto3.invalidMessageFormatErr", "invalid message format", broken("find out what stands between here and the server: the bytes are not PostgreSQL's"), "what came is no message: something changes bytes on their way"),
			named("pgconn.pgconnError", "an error of pgconn", broken(report), "what it wraps is known no better"),
		},
	}
}

// named returns an entry for an error whose type pgx keeps to itself. A test
// reads in pgx's source that there still is one of that name.
func named(code, name string, class driver.Class, why string) driver.Entry {
	e := driver.Line(code, name, class, driver.Unknown, why)
	e.Match = func(err error) bool { return hasType(err, "*"+code) }
	return e
}

// hasType reports whether err or an error that it wraps is of the type.
func hasType(err error, name string) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if fmt.Sprintf("%T", err) == name {
			return true
		}
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range many.Unwrap() {
				if hasType(e, name) {
					return true
				}
			}
		}
	}
	return false
}
