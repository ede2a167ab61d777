package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

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
// is besides (or nil). It is the only place that does.
func classify(err error, sent sent) (driver.Class, error) {
	class, is := meaning(err)
	class.Outcome = outcome(err, sent)
	return class, is
}

// outcome: a server's answer of severity ERROR to the write itself means that
// it was rolled back. Anything else after the write was sent leaves it open.
func outcome(err error, sent sent) driver.Outcome {
	if sent == notSent || errors.Is(err, pgx.ErrTxCommitRollback) {
		return driver.NotApplied
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || severity(pg) != "ERROR" || lookUp(pg.Code).doubtful {
		return driver.Unknown
	}
	return driver.NotApplied
}

func severity(pg *pgconn.PgError) string {
	if pg.SeverityUnlocalized != "" {
		return pg.SeverityUnlocalized
	}
	return pg.Severity
}

// meaning asks the questions in this order: is the error ours, does it carry
// the server's code, is it about TLS, a context, the operating system or the
// network; the first that says yes decides.
func meaning(err error) (driver.Class, error) {
	if class, ok := own(err); ok {
		return class, nil
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if pg.Code == "0A000" && pg.Routine == "RevalidateCachedQuery" {
			return retry(""), nil // a table was altered; pgx has forgotten the plan, the next try prepares anew
		}
		v := lookUp(pg.Code)
		return v.class, v.is
	}
	for _, ask := range []func(error) (driver.Class, bool){ofTLS, ofContext, ofSystem, ofNetwork, ofClient} {
		if class, ok := ask(err); ok {
			return class, nil
		}
	}
	return broken(report), nil
}

// own knows the sentinels of this package and of package driver.
func own(err error) (driver.Class, bool) {
	for _, row := range []struct {
		is    error
		class driver.Class
	}{
		{driver.ErrConflict, callers()},
		{driver.ErrCompacted, callers()},
		{driver.ErrTooLarge, callers()},
		{driver.ErrCorrupt, broken("stop every process of this service and restore the catalog, or find out who changed it")},
		{driver.ErrBlocked, retry("end what blocks, such as by pg_terminate_backend, or wait for it")},
		{errClosed, callers()},
		{errEnded, callers()},
		{errMisuse, broken(report)},
		{errCut, retry("")},
		{errStandby, retry("let the DSN lead to the primary, such as by target_session_attrs=read-write")},
		{errTimeline, retry("shut the old primary down, or let the DSN lead to the new one")},
		{errElsewhere, misconfigured("correct the DSN if this is the wrong database; if it was restored, copied or upgraded on purpose, stop every process of the service and run `fencepost restored --above` with the highest token that was ever issued")},
		{errMoved, retry("")},
		{errForeign, misconfigured("use another database, or rename that schema")},
		{errVersion, misconfigured("deploy a build that knows it")},
		{errUnprepared, misconfigured("call postgres.Prepare with its configuration before pgxpool.NewWithConfig")},
	} {
		if errors.Is(err, row.is) {
			return row.class, true
		}
	}
	return driver.Class{}, false
}

// ofTLS knows what certificates and handshakes fail with. They come from
// files and configuration, so that only those help, except for the three
// alerts that say no more than that the other side ended the connection.
func ofTLS(err error) (driver.Class, bool) {
	const remedy = "check sslmode, sslrootcert and the certificates of both sides"
	var alert tls.AlertError
	if errors.As(err, &alert) {
		switch alert {
		case 0, 80, 90: // close_notify, internal_error, user_canceled
			return retry(""), true
		}
		return misconfigured(remedy), true
	}
	if isA[x509.CertificateInvalidError](err) || isA[x509.HostnameError](err) || isA[x509.UnknownAuthorityError](err) ||
		isA[x509.SystemRootsError](err) || isA[x509.InsecureAlgorithmError](err) || isA[x509.ConstraintViolationError](err) ||
		isA[x509.UnhandledCriticalExtension](err) || isA[*tls.CertificateVerificationError](err) ||
		isA[*tls.ECHRejectionError](err) || isA[tls.RecordHeaderError](err) {
		return misconfigured(remedy), true
	}
	return driver.Class{}, false
}

// ofContext: the deadline is package catalog's and means that the server was
// too slow; a cancellation is somebody's who no longer wants the answer.
func ofContext(err error) (driver.Class, bool) {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return retry(""), true
	case errors.Is(err, context.Canceled):
		return callers(), true
	default:
		return driver.Class{}, false
	}
}

// ofSystem knows what the operating system refuses connections and sockets
// with.
func ofSystem(err error) (driver.Class, bool) {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return driver.Class{}, false
	}
	switch errno {
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
		syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENETRESET,
		syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.ENOTCONN, syscall.ESHUTDOWN,
		syscall.EAGAIN, syscall.EINTR, syscall.ENOBUFS, syscall.ENOMEM, syscall.EIO:
		return retry(""), true
	case syscall.EMFILE, syscall.ENFILE:
		return retry("raise the limit of open files"), true
	case syscall.ENOENT: // the socket's file, which a running server makes
		return retry("start the server, or correct the socket's folder in the DSN"), true
	case syscall.EACCES, syscall.EPERM, syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT, syscall.ENOTSOCK,
		syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG:
		return misconfigured("correct host and port in the DSN, and the rights of this process"), true
	}
	return broken(report), true
}

// ofNetwork knows lost, refused and late connections without a number of the
// operating system.
func ofNetwork(err error) (driver.Class, bool) {
	var dns *net.DNSError
	var network net.Error
	switch {
	case errors.As(err, &dns):
		return retry("check the host's name in the DSN"), true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed),
		errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, pgconn.ErrConnClosed), pgconn.Timeout(err),
		errors.As(err, &network) && network.Timeout():
		return retry(""), true
	default:
		return driver.Class{}, false
	}
}

// ofClient knows what pgx itself returns. A connection that failed for none of
// the reasons above was refused by one of the two sides over how to speak,
// such as TLS or the way of authentication.
func ofClient(err error) (driver.Class, bool) {
	var tooLong *pgproto3.ExceededMaxBodyLenErr
	switch {
	case errors.Is(err, pgx.ErrTxCommitRollback), isA[*pgconn.NotPreferredError](err):
		return retry(""), true
	case isA[*pgconn.ParseConfigError](err):
		return misconfigured("correct the DSN: " + dsnForm), true
	case isA[*pgconn.ConnectError](err):
		return misconfigured("check sslmode, password and authentication in the DSN and in the server's pg_hba.conf"), true
	case errors.As(err, &tooLong):
		return misconfigured("raise the largest message of the connection's configuration"), true
	case isA[net.Error](err):
		return retry(""), true
	default:
		return driver.Class{}, false
	}
}

func isA[T error](err error) bool {
	var target T
	return errors.As(err, &target)
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
