package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Marks in the custom data of a connection.
const (
	markPrepared = "fencepost.prepared"
	markCut      = "fencepost.cut"
	markPooled   = "fencepost.pooled"
	markDialed   = "fencepost.dialed"
	markWarm     = "fencepost.warm"
)

// errCut means that a commit which the server reports as done was not waited
// for: it is committed where it was sent, and perhaps nowhere else.
var errCut = errors.New("the wait for the synchronous standby was cancelled: committed here, perhaps on no standby")

// Prepare readies the configuration of a pool that is to be handed to [Open]:
// call it before pgxpool.NewWithConfig. It wraps BeforeConnect, and ConnConfig's
// OnNotice, ValidateConnect, AfterConnect and BuildFrontend, and calls what they
// were before.
//
// It is needed because a server whose wait for a synchronous standby was
// cancelled reports the commit as a success, and says otherwise in a notice
// only; because a pooler has one code for a wrong password and for what
// passes, which only the moment of its answer tells apart; and because a new
// connection is refused if its server is a standby, was left behind by a
// fail-over, or is of another system than the newest claim. If the
// configuration names several hosts, the next one is tried then. A connection
// takes no more round trips for it than without.
func Prepare(config *pgxpool.Config) { prepare(config, newSightings()) }

func prepare(config *pgxpool.Config, m *sightings) {
	conn := &config.ConnConfig.Config
	beforeConnect, onNotice, validateConnect, afterConnect := config.BeforeConnect, conn.OnNotice, conn.ValidateConnect, conn.AfterConnect
	config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
		m.lookFirst(ctx)
		m.order(c) // before the hook, since a password may be made for the host that is dialed
		if beforeConnect != nil {
			return beforeConnect(ctx, c)
		}
		return nil
	}
	conn.BuildFrontend = readAlong(conn.BuildFrontend)
	conn.OnNotice = func(c *pgconn.PgConn, n *pgconn.Notice) {
		if cutsWait(n) {
			c.CustomData()[markCut] = true
		}
		if onNotice != nil {
			onNotice(c, n)
		}
	}
	conn.ValidateConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		err := m.greet(ctx, c)
		if err == nil && validateConnect != nil && !isLook(ctx) {
			err = validateConnect(ctx, c)
		}
		return err
	}
	conn.AfterConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		c.CustomData()[markPrepared] = true
		if afterConnect != nil {
			return afterConnect(ctx, c)
		}
		return nil
	}
}

func pooled(c *pgconn.PgConn) bool { return c.CustomData()[markPooled] == true }

func prepared(c *pgconn.PgConn) bool {
	return c.CustomData()[markPrepared] == true && dialedOf(c) != nil
}

// expectCommit forgets notices of the past, before a commit is sent.
func expectCommit(c *pgconn.PgConn) { delete(c.CustomData(), markCut) }

// checkCommit returns errCut where the commit just reported was not waited for.
func checkCommit(c *pgconn.PgConn) error {
	if c.CustomData()[markCut] == true {
		return errCut
	}
	return nil
}

// cutsWait reports whether a notice may be the one about a cancelled wait for
// a synchronous standby. Its text is in the server's language, so the code
// decides: 01000 for a cancelled wait, 57P01 for a terminated one. A warning
// that somebody's PL/pgSQL raised has 01000 too and is known by its routine.
func cutsWait(n *pgconn.Notice) bool {
	return (n.Code == "01000" || n.Code == "57P01") && n.Routine != "exec_stmt_raise"
}
