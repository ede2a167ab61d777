// Package testpg gives tests a real PostgreSQL: a fresh database on the server
// that the whole test run shares, or a private server that a test may break.
//
// A test that needs the server and finds none fails. It never skips, so that
// no run is green without having asked PostgreSQL.
package testpg

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Variable names the environment variable with the URL of the shared server,
// whose user may create databases.
const Variable = "FENCEPOST_TEST_POSTGRES"

// FolderVariable names the environment variable with the folder in which private
// servers keep their data. Unset, it is that of temporary files.
const FolderVariable = "FENCEPOST_TEST_SERVERS"

const timeout = time.Minute

// URL creates a database on the shared server, to be dropped at the end of the
// test, and returns its URL.
func URL(t testing.TB) string {
	t.Helper()
	server := os.Getenv(Variable)
	require.NotEmpty(t, server, "%s is not set: run make test, or scripts/postgres.sh start DIR and set it to what that prints", Variable)
	return Database(t, server)
}

// Database creates a database on the server at a URL, to be dropped at the end
// of the test, and returns its URL.
func Database(t testing.TB, server string) string {
	t.Helper()
	id := driver.NewID()
	name := "test_" + id.String()
	Exec(t, server, "create database "+name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			return // the server has gone, and the database with it
		}
		defer func() { _ = conn.Close(ctx) }()
		_, _ = conn.Exec(ctx, "drop database if exists "+name+" with (force)")
	})
	return With(t, server, func(u *url.URL) { u.Path = "/" + name })
}

// With returns a URL changed by fn.
func With(t testing.TB, server string, fn func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	fn(u)
	return u.String()
}

// Connect returns a connection, to be closed at the end of the test.
func Connect(t testing.TB, server string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	require.NoError(t, err, "the server of %s is out of reach: run make test", Variable)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// Exec runs statements on a connection of its own.
func Exec(t testing.TB, server string, statements ...string) {
	t.Helper()
	conn := Connect(t, server)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for _, sql := range statements {
		_, err := conn.Exec(ctx, sql)
		require.NoError(t, err, sql)
	}
	require.NoError(t, conn.Close(ctx))
}

// Backends returns the process ids of the sessions of the URL's database,
// those of an application name or, where that is empty, all, without the
// asking one.
func Backends(t testing.TB, server, application string) []int {
	t.Helper()
	conn := Connect(t, server)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, `select pid from pg_stat_activity where datname = current_database()
		and pid <> pg_backend_pid() and ($1 = '' or application_name = $1) order by pid`, application)
	require.NoError(t, err)
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	require.NoError(t, err)
	return pids
}

// Waiting returns the process id of the one session of the URL's database that
// waits for a lock, or zero. It is a condition to poll.
func Waiting(server string) int {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return 0
	}
	defer func() { _ = conn.Close(ctx) }()
	var pid int
	err = conn.QueryRow(ctx, `select coalesce(min(pid), 0) from pg_stat_activity
		where datname = current_database() and wait_event_type = 'Lock'`).Scan(&pid)
	if err != nil {
		panic(fmt.Sprintf("testpg: %v", err))
	}
	return pid
}
