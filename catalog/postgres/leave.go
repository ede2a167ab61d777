package postgres

import (
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
)

// leave closes a connection whose server turned out not to be the one to write
// to, and all others with it, which lead to the same one most
// likely: the next call dials anew, and where the DSN names several hosts, or
// one name moves, finds the server that took over. Without this a pool would
// hand out the same sound connection to the wrong server again and again.
func (l *links) leave(conn *pgxpool.Conn, err error) {
	if !wrongServer(err) {
		return
	}
	hangUp(conn.Conn())
	l.liveness.Reset()
	if l.ownPool { // the application's connections may lead elsewhere
		l.pool.Reset()
	}
}

// wrongServer reports whether another server may do what this one can't.
func wrongServer(err error) bool {
	for _, is := range []error{errStandby, errTimeline, errElsewhere, errMoved} {
		if errors.Is(err, is) {
			return true
		}
	}
	return sqlState(err) == "25006"
}
