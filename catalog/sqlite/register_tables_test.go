package sqlite_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// given is the token that all connections of this process give to guarded tables. Whoever
// locks it sets it.
var given struct {
	sync.Mutex
	token atomic.Pointer[fence.Token] // nil: none
}

func givenToken() fence.Token {
	if t := given.token.Load(); t != nil {
		return *t
	}
	return fence.Token{}
}

// gives locks given for a test.
func gives(t *testing.T) {
	given.Lock()
	t.Cleanup(given.Unlock)
}

// A text is a token as strangers give it.
type text string

func (t text) String() string { return string(t) }

// TestTheDatabaseItselfRefusesEveryWriteWithoutTheRegistersToken plays every way to
// write, by connections of another library that give all kinds of tokens.
func TestTheDatabaseItselfRefusesEveryWriteWithoutTheRegistersToken(t *testing.T) {
	t.Parallel()
	path := appFile(t, "WAL")
	r := openRegister(t, path)
	raw(t, path, "INSERT INTO orders VALUES (1)", `CREATE TABLE "the ""lines" (id TEXT PRIMARY KEY) WITHOUT ROWID`,
		"CREATE TABLE parent (id INTEGER PRIMARY KEY, v)", "CREATE TABLE child (p REFERENCES parent ON DELETE CASCADE)",
		"INSERT INTO parent VALUES (1, 'x')", "INSERT INTO child VALUES (1)")
	require.NoError(t, r.InstallGuards(t.Context(), driver.GuardedTables{Tables: []string{"ORDERS", `"the ""lines"`, "child"}}))
	require.NoError(t, r.InstallGuards(t.Context(), driver.GuardedTables{Schemas: []string{"main"}}), "again, and the rest")
	writes := []string{
		"INSERT INTO orders VALUES (2)", "UPDATE orders SET n = 3", "DELETE FROM orders", "REPLACE INTO parent VALUES (1, 'y')",
		"INSERT OR IGNORE INTO parent VALUES (7, 'z')", "UPDATE OR IGNORE parent SET v = 'w'", "DELETE FROM parent",
		`INSERT INTO "the ""lines" VALUES ('k') ON CONFLICT DO NOTHING`, "INSERT INTO orders SELECT 9 FROM child",
		"INSERT INTO parent VALUES (1, 'u') ON CONFLICT DO UPDATE SET v = 'u'",
	}
	for _, raised := range []bool{false, true} {
		refusals := map[text]string{
			"none": "no such function", "": "TKN02", "x": "TKN03", "7": "TKN03", "g1.e1\x01" + "0123456789012345678901234567890123456789": "TKN03", "g99999999999999999999.e1": "TKN04",
			"g1.e1": "TKN04", "g2.e3": "TKN04",
		}
		if raised {
			require.NoError(t, r.Raise(t.Context(), token(2, 2), fence.Holder{}))
			refusals["g1.e1"] = "TKN01"
		} else {
			refusals = map[text]string{"none": "no such function", "": "TKN02", "g1.e1": "TKN04"}
		}
		without := startForeign(t, path, text("none"))
		with := startForeign(t, path, text(""))
		for given, says := range refusals {
			p := with
			if given == "none" {
				p = without
			}
			p.does("give "+given.String(), "done")
			for _, w := range writes {
				p.does(w, "failed")
			}
			p.does("INSERT INTO orders VALUES (2)", says)
		}
	}
	db := appDB(t, path, "immediate")
	require.Equal(t, []int{1, 1, 1, 0}, []int{rowsIn(t, db, "orders"), rowsIn(t, db, "parent"), rowsIn(t, db, "child"), rowsIn(t, db, `"the ""lines"`)})
	p := startForeign(t, path, token(2, 2))
	p.does("PRAGMA foreign_keys = ON", "done")
	for _, w := range writes {
		p.does(w, "done")
	}
	p.does("ALTER TABLE orders RENAME TO bills", "done")
	raw(t, path, "CREATE TABLE orders (n)")
	require.NoError(t, r.InstallGuards(t.Context(), driver.GuardedTables{Tables: []string{"orders"}}))
	g, err := r.Guards(t.Context())
	require.NoError(t, err)
	require.Len(t, g.Tables, 5)
	require.Empty(t, g.Unguarded)

	require.NoError(t, p.cmd.Process.Kill())
	require.Error(t, p.cmd.Wait())
	require.NoError(t, r.RemoveGuards(t.Context(), driver.GuardedTables{Tables: []string{"bills"}}))
	raw(t, path, "INSERT INTO bills VALUES (1)")
}

func TestARaiseBetweenTwoWritesOfATransactionIsNotPossibleAndOneBeforeItsFirstRefusesIt(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"WAL", "DELETE"} {
		path := appFile(t, journal)
		r := openRegister(t, path)
		require.NoError(t, r.Raise(t.Context(), token(1, 1), fence.Holder{}))
		require.NoError(t, r.InstallGuards(t.Context(), driver.GuardedTables{Tables: []string{"orders"}}))
		p := startForeign(t, path, token(1, 1))
		p.does("BEGIN", "done")
		p.does("INSERT INTO orders VALUES (1)", "done")
		require.NoError(t, r.Prove(t.Context(), token(2, 2)), "it would only have to wait")
		failsBy(t, "python3", raiseOf(r, token(2, 2)))
		p.does("INSERT INTO orders VALUES (1)", "done")
		p.does("COMMIT", "done")
		p.does("BEGIN", "done")
		if journal == "WAL" {
			p.does("SELECT count(*) FROM orders", "done")
		}
		require.NoError(t, r.Raise(t.Context(), token(2, 2), fence.Holder{}))
		p.does("INSERT INTO orders VALUES (1)", "failed")
		p.does("ROLLBACK", "done")
		p.does("INSERT INTO orders VALUES (1)", "TKN01")
		require.Equal(t, 2, rowsIn(t, appDB(t, path, "immediate"), "orders"))
	}
}

func TestARefusalOfAGuardedTableIsOfTheRightKindInGo(t *testing.T) {
	t.Parallel()
	path := appFile(t, "WAL")
	gives(t)
	r, db := openRegister(t, path), appDB(t, path, "immediate")
	require.NoError(t, r.InstallGuards(t.Context(), driver.GuardedTables{Tables: []string{"orders"}}))
	write := func(as fence.Token) error {
		given.token.Store(&as)
		_, err := db.ExecContext(t.Context(), "INSERT INTO orders VALUES (1)")
		return err
	}
	require.ErrorIs(t, sqlite.Refusal(write(fence.Token{})), fence.ErrMissing)
	require.ErrorIs(t, sqlite.Refusal(write(token(2, 2))), fence.ErrNeverIssued)
	require.NoError(t, r.Raise(t.Context(), token(2, 2), fence.Holder{}))
	require.NoError(t, write(token(2, 2)))
	require.ErrorIs(t, sqlite.Refusal(write(token(2, 3))), fence.ErrNeverIssued)
	err := sqlite.Refusal(write(token(1, 1)))
	var stale *fence.Error
	require.ErrorAs(t, err, &stale)
	require.Equal(t, "sqlite register", stale.Guard)
	require.NotErrorIs(t, err, fence.ErrSuperseded)
	require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
	require.NotContains(t, err.Error(), "g0.e0")
	_, err = db.ExecContext(t.Context(), "INSERT INTO nothing VALUES (1)")
	require.NoError(t, sqlite.Refusal(err))
}

func TestTablesThatTakeNoGuardAreRefusedAndGapsAreShown(t *testing.T) {
	t.Parallel()
	path := appFile(t, "WAL")
	r := openRegister(t, path)
	g, err := r.Guards(t.Context())
	require.NoError(t, err)
	require.False(t, g.Installed)
	raw(t, path, "CREATE VIEW seen AS SELECT * FROM orders", "CREATE VIRTUAL TABLE words USING fts5(w)", "CREATE TABLE more (n)")
	for name, says := range map[string]string{
		"absent": "there is no table", "seen": "of kind view", "words": "of kind virtual", "words_content": "of kind shadow", "fencepost_token": "there is no table", "sqlite_schema": "there is no table",
	} {
		err := r.InstallGuards(t.Context(), driver.GuardedTables{Tables: []string{"orders", name}})
		require.ErrorContains(t, err, says)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	}
	require.ErrorContains(t, r.InstallGuards(t.Context(), driver.GuardedTables{Schemas: []string{"app"}}), "want main")
	g, err = r.Guards(t.Context())
	require.NoError(t, err)
	require.False(t, g.Installed, "what fails leaves nothing")
	require.NoError(t, r.InstallGuards(t.Context(), driver.GuardedTables{Tables: []string{"orders"}}))
	g, err = r.Guards(t.Context())
	require.NoError(t, err)
	require.Equal(t, []driver.GuardedTable{{Name: "orders"}}, g.Tables)
	require.Equal(t, []string{"more", "words"}, g.Unguarded)

	db := appDB(t, path, "immediate")
	var name string
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT name FROM sqlite_master WHERE name LIKE 'fencepost_guard_update%'").Scan(&name))
	raws(t, db, `DROP TRIGGER "`+name+`"`)
	problem := func() string {
		g, err := r.Guards(t.Context())
		require.NoError(t, err)
		return g.Tables[0].Problem
	}
	require.Contains(t, problem(), "updates are not guarded")
	raws(t, db, `CREATE TRIGGER "`+name+`" BEFORE UPDATE ON orders WHEN 0 BEGIN SELECT 1; END`)
	require.Contains(t, problem(), "was altered")
	require.ErrorContains(t, r.InstallGuards(t.Context(), driver.GuardedTables{Tables: []string{"orders"}}), "remove --table before")
	require.NoError(t, r.RemoveGuards(t.Context(), driver.GuardedTables{Tables: []string{"orders"}}))
	require.NoError(t, r.InstallGuards(t.Context(), driver.GuardedTables{Tables: []string{"orders"}}))
	require.Empty(t, problem())
}
