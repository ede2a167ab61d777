// Package guards tries the guards of PostgreSQL with other clients and tools than
// the library's own: lib/pq, pg_dump and pg_restore.
package guards

import (
	"context"
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"testing"
	"time"

	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testpg"
)

// holder claims the catalog of a database.
func holder(t *testing.T, dsn string, g generation.Generation) (*catalog.Catalog, *postgres.Store) {
	t.Helper()
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{})
	require.NoError(t, err)
	c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: g, Holder: fence.Holder{Name: "test"}})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = c.Close()
		require.NoError(t, s.Close())
	})
	return c, s
}

func openPQ(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func TestAStaleHolderIsRefusedThroughLibPQ(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	blue, s := holder(t, dsn, 1)
	testpg.Exec(t, dsn, `create table plain (n int)`, `create table guarded (n int)`)
	require.NoError(t, s.InstallGuards(t.Context(), driver.GuardedTables{Tables: []string{"guarded"}}))
	db := openPQ(t, dsn)
	token := blue.Claim().Token
	client := func(level sql.IsolationLevel, token fence.Token) error {
		tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
		require.NoError(t, err)
		defer func() { _ = tx.Rollback() }()
		if err := postgres.GuardSQL(t.Context(), tx, token); err != nil {
			return err
		}
		_, err = tx.ExecContext(t.Context(), `insert into plain values ($1)`, 1)
		require.NoError(t, err)
		return tx.Commit()
	}
	database := func(level sql.IsolationLevel, token fence.Token) error {
		tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
		require.NoError(t, err)
		defer func() { _ = tx.Rollback() }()
		_, err = tx.ExecContext(t.Context(), `select set_config($1, $2, true)`, postgres.TokenSetting, token.String())
		require.NoError(t, err)
		_, err = tx.ExecContext(t.Context(), `insert into guarded values ($1)`, 1)
		require.NoError(t, err)
		return tx.Commit()
	}
	levels := []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable}
	for _, level := range levels {
		require.NoError(t, client(level, token))
		require.NoError(t, database(level, token))
	}
	green, _ := holder(t, dsn, 2)
	for _, level := range levels {
		for _, way := range []func(sql.IsolationLevel, fence.Token) error{client, database} {
			var refused *fence.Error
			require.ErrorAs(t, postgres.Refusal(way(level, token)), &refused)
			require.Equal(t, [2]fence.Token{token, green.Claim().Token}, [2]fence.Token{refused.Held, refused.Current})
			require.Equal(t, "test", refused.By.Name)
			require.Equal(t, "postgres catalog main", refused.Guard)
			require.ErrorIs(t, postgres.Refusal(way(level, fence.Token{Generation: 9, Epoch: 9})), fence.ErrNeverIssued)
		}
	}
	for _, table := range []string{"plain", "guarded"} {
		var n int
		require.NoError(t, db.QueryRowContext(t.Context(), `select count(*) from `+table).Scan(&n))
		require.Equal(t, len(levels), n)
	}
}

// tool runs one of PostgreSQL's programs, of the newest version here.
func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	path := filepath.Join(os.Getenv("FENCEPOST_TEST_POSTGRES_BIN"), name)
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(found) > 0 && !filepath.IsAbs(path) {
		sort.Strings(found)
		path = found[len(found)-1]
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	require.NoError(t, err, "%s: %s", name, out)
}

// TestADumpWithGuardsIsRestoredAndRefusesEveryWriterUntilItIsAdopted dumps and
// restores as an operator does, on the same server.
func TestADumpWithGuardsIsRestoredAndRefusesEveryWriterUntilItIsAdopted(t *testing.T) {
	t.Parallel()
	from, to := testpg.URL(t), testpg.URL(t)
	blue, s := holder(t, from, 1)
	token := blue.Claim().Token
	testpg.Exec(t, from, `create table orders (id int primary key)`)
	require.NoError(t, s.InstallGuards(t.Context(), driver.GuardedTables{Tables: []string{"orders"}}))
	testpg.Exec(t, from, `begin; set local fencepost.token = '`+token.String()+`'; insert into orders values (1); commit`)
	file := filepath.Join(t.TempDir(), "dump")
	tool(t, "pg_dump", "-Fc", "-f", file, "-d", from)
	tool(t, "pg_restore", "--exit-on-error", "-d", to, file)

	conn := testpg.Connect(t, to)
	write := func(token fence.Token, id int) error {
		tx, err := conn.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(t.Context()) }()
		_, err = tx.Exec(t.Context(), `select set_config('fencepost.token', $1, true)`, token.String())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), `insert into orders values ($1)`, id)
		require.NoError(t, err)
		return tx.Commit(t.Context())
	}
	require.ErrorIs(t, postgres.Refusal(write(token, 2)), postgres.ErrCopied)
	_, err := postgres.Begin(t.Context(), conn, token)
	require.ErrorIs(t, err, postgres.ErrCopied)

	copied, err := postgres.Open(t.Context(), to, postgres.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, copied.Close()) }()
	_, err = catalog.Open(t.Context(), copied, catalog.Config{Generation: 2})
	require.ErrorIs(t, err, postgres.ErrCopied)

	claim, err := catalog.Raise(t.Context(), copied, catalog.Config{}, catalog.RaiseOptions{Reason: "restored", Above: token})
	require.NoError(t, err)
	require.ErrorIs(t, postgres.Refusal(write(token, 2)), fence.ErrFenced)
	green, _ := holder(t, to, claim.Token.Generation)
	require.NoError(t, write(green.Claim().Token, 2))
	require.NoError(t, blue.Confirm(t.Context()), "the original goes on")
}
