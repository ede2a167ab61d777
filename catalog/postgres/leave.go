package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
)

// leave closes a connection whose server turned out not to be the one to write
// to. The other connections to that server are closed too: idle ones at once, busy
// ones when they are next taken out of their pool. Those to other servers stay. The
// next call dials anew, and finds the server that took over if the DSN names several
// hosts, or if one name moves.
func (l *links) leave(conn *pgxpool.Conn, err error) {
	if !wrongServer(err) {
		return
	}
	hangUp(conn.Conn())
	if !pooled(conn.Conn().PgConn()) { // else the other connections lead to whichever servers the pooler has
		l.forsake(conn)
	}
}

// forsake has no connection used any more that was made to the same server
// before now.
func (l *links) forsake(conn *pgxpool.Conn) {
	d := dialedOf(conn.Conn().PgConn())
	if d == nil {
		return
	}
	d.memory.leave(d.server)
	sweep(l.liveness)
	if l.ownPool {
		sweep(l.pool)
	}
}

// sweep closes the idle connections of a pool that must not be used any more.
func sweep(pool *pgxpool.Pool) {
	ctx := context.Background() // nothing is waited for
	var stale []*pgxpool.Conn
	for _, conn := range pool.AcquireAllIdle(ctx) {
		if d := dialedOf(conn.Conn().PgConn()); d != nil && d.memory.stale(ctx, d) {
			stale = append(stale, conn)
			continue
		}
		give(conn)
	}
	for _, conn := range stale {
		hangUp(conn.Conn())
		give(conn)
	}
}

// broke reports whether a connection broke while ctx goes on. Then the others to
// the same server went the same way, most likely.
func (l *links) broke(ctx context.Context, conn *pgxpool.Conn) bool {
	if !conn.Conn().IsClosed() || ctx.Err() != nil {
		return false
	}
	l.forsake(conn)
	return true
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
