package postgres

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/fencepost/fencepost/catalog/driver"
)

// poolersCode is the code by which PgBouncer, every version of it, says
// whatever it has to say itself: that a password is wrong as well as that the
// server is out of reach.
const poolersCode = "08P01"

// A refusedError is an answer to the password itself.
type refusedError struct{ answer *pgconn.PgError }

func (e *refusedError) Error() string { return e.answer.Error() }
func (e *refusedError) Unwrap() error { return e.answer }

// poolersWord returns the answer in err where a pooler gave it by itself.
// PostgreSQL names the routine in each of its answers, and no pooler has one.
func poolersWord(err error) (*pgconn.PgError, bool) {
	pg, ok := answerOf(err)
	return pg, ok && pg.Code == poolersCode && pg.Routine == ""
}

func isRefused(err error) bool {
	var refused *refusedError
	return errors.As(err, &refused)
}

// isUnwelcome reports whether a pooler ended a connection before it was ready.
func isUnwelcome(err error) bool {
	var failed *pgconn.ConnectError
	_, pooler := poolersWord(err)
	return pooler && errors.As(err, &failed)
}

// door is what a pooler says to whom it does not let in.
func door() []driver.Entry {
	refused := driver.Line(poolersCode+" to a password", "a pooler refused the password", misconfigured(credentials+"; behind a pooler, its list of users"), driver.NotApplied,
		"PgBouncer's answer to the proof of a password (SCRAM), in place of its confirmation: the password is wrong, or there is no such user; nothing else is asked at that moment")
	refused.Match = isRefused
	unwelcome := driver.Line(poolersCode+" while connecting", "a pooler did not let the connection in",
		retry("if this lasts, check user, password and database, in the DSN and in the pooler's configuration; the pooler's log has the cause"), driver.Unknown,
		"PgBouncer's one code for a missing database, a wrong password that was not proved by SCRAM, a server out of reach, a full queue, a login that took too long and its own shutdown, "+
			"all sent at the same moment, which only a text tells apart (the server's own answers keep their codes from version 1.21 on): most of them pass, and what passes must not stop a process for good")
	unwelcome.Match = isUnwelcome
	return []driver.Entry{refused, unwelcome}
}

// A login reads along, message by message, until a connection is let in. What
// a pooler answers to the proof of a password (SCRAM) can only be about that
// proof: pooler and client are not waiting for anybody else, the server is asked
// later, and the pooler's time-out for a login, of 60 s, comes after ours. At any
// other moment the same code is given for what passes.
type login struct {
	from  io.Reader
	asked uint32 // the newest request for authentication
	over  bool   // what follows is handed on unread
	rest  []byte // was read, and is yet to be handed on
}

// readAlong wraps what builds a connection's end of the protocol.
func readAlong(build pgconn.BuildFrontendFunc) pgconn.BuildFrontendFunc {
	return func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return build(&login{from: r}, w)
	}
}

func (l *login) Read(p []byte) (int, error) {
	if len(l.rest) == 0 && l.over {
		return l.from.Read(p)
	}
	if len(l.rest) == 0 {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// next reads one message. Bytes that are none are pgx's to judge.
func (l *login) next() error {
	const header, longest = 5, 1 << 16
	message := make([]byte, header)
	if _, err := io.ReadFull(l.from, message); err != nil {
		return err
	}
	l.rest = message
	length := binary.BigEndian.Uint32(message[1:])
	if length < 4 || length > longest {
		l.over = true
		return nil
	}
	body := make([]byte, length-4)
	if _, err := io.ReadFull(l.from, body); err != nil {
		return err
	}
	l.rest = append(message, body...)
	return l.judge(message[0], body)
}

func (l *login) judge(kind byte, body []byte) error {
	const authentication, failure, notice, version = 'R', 'E', 'N', 'v'
	switch kind {
	case authentication:
		if len(body) >= 4 {
			l.asked = binary.BigEndian.Uint32(body)
		}
		l.over = l.asked == pgproto3.AuthTypeOk
	case failure:
		l.over = true
		if l.asked == pgproto3.AuthTypeSASLContinue {
			return refusal(body)
		}
	case notice, version:
	default:
		l.over = true
	}
	return nil
}

// refusal returns the error of a pooler's answer.
func refusal(body []byte) error {
	var answer pgproto3.ErrorResponse
	if answer.Decode(body) != nil {
		return nil
	}
	pg, ok := poolersWord(pgconn.ErrorResponseToPgError(&answer))
	if !ok {
		return nil
	}
	return &refusedError{pg}
}
