package postgres

import (
	"context"
	"errors"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Marks in the custom data of a connection.
const (
	markPrepared = "fencepost.prepared"
	markCut      = "fencepost.cut"
	markPooled   = "fencepost.pooled"
	markWarm     = "fencepost.warm"
)

// errCut means that a commit which the server reports as done was not waited
// for: it is committed where it was sent, and perhaps nowhere else.
var errCut = errors.New("the wait for the synchronous standby was cancelled: committed here, perhaps on no standby")

// Prepare readies the configuration of a pool that is to be handed to [Open]:
// call it before pgxpool.NewWithConfig. It wraps ConnConfig's OnNotice,
// AfterConnect and BuildFrontend and keeps what they did.
//
// It is needed because a server whose wait for a synchronous standby was
// cancelled reports the commit as a success, and says otherwise in a notice
// only; and because a pooler has one code for a wrong password and for what
// passes, which only the moment of its answer tells apart.
func Prepare(config *pgxpool.Config) {
	conn := &config.ConnConfig.Config
	onNotice, afterConnect := conn.OnNotice, conn.AfterConnect
	conn.BuildFrontend = readAlong(conn.BuildFrontend)
	conn.OnNotice = func(c *pgconn.PgConn, n *pgconn.Notice) {
		if cutsWait(n) {
			c.CustomData()[markCut] = true
		}
		if onNotice != nil {
			onNotice(c, n)
		}
	}
	conn.AfterConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		c.CustomData()[markPrepared] = true
		if err := findPooler(ctx, c); err != nil {
			return err
		}
		if afterConnect != nil {
			return afterConnect(ctx, c)
		}
		return nil
	}
}

// findPooler marks a connection that ends at a pooler: the process that it was
// told of at its beginning is not the one that answers.
func findPooler(ctx context.Context, c *pgconn.PgConn) error {
	results, err := c.Exec(ctx, "select pg_catalog.pg_backend_pid()").ReadAll()
	if err != nil {
		return err
	}
	c.CustomData()[markPooled] = len(results) == 1 && len(results[0].Rows) == 1 &&
		string(results[0].Rows[0][0]) != strconv.FormatUint(uint64(c.PID()), 10)
	return nil
}

func pooled(c *pgconn.PgConn) bool { return c.CustomData()[markPooled] == true }

func prepared(c *pgconn.PgConn) bool { return c.CustomData()[markPrepared] == true }

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
