package sqlite_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

func TestOpenDBHasTheCatalogsFileOnEachConnection(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]sqlite.GuardOption{
		"app.db": nil, "file:": nil, "app.db?_busy_timeout=100": {sqlite.AttachedAs(`c"at`)}, "": {sqlite.AttachedAs("main")},
	} {
		path := filepath.Join(t.TempDir(), "a name with % ? and #.db")
		blue := holder(t, path, 1)
		s := open(t, path)
		full := name
		switch name {
		case "":
		case "file:":
			full = "file:" + t.TempDir() + "/app.db?_txlock=deferred"
		default:
			full = t.TempDir() + "/" + name
		}
		db, err := s.OpenDB(full, options...)
		require.NoError(t, err)
		raws(t, db.DB, "CREATE TABLE orders (n)")
		var conns []*sql.Conn
		for range 3 {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			require.NoError(t, conn.Close())
		}
		for range 5 {
			tx, err := sqlite.Begin(t.Context(), db, blue.Token())
			require.NoError(t, err, name)
			_, err = tx.ExecContext(t.Context(), "INSERT INTO orders VALUES (1)")
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
		}
		require.Equal(t, 5, rowsIn(t, db.DB, "orders"))
		require.NoError(t, db.Close())
		require.NoError(t, put(t.Context(), blue, "k", nil))
	}
}

func TestTheLastConnectionOfTheApplicationsLeavesTheWALInPlace(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "app.db"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "c.db")
		s, err := sqlite.Open(path, sqlite.Config{})
		require.NoError(t, err)
		drivertest.Install(t, s, 1)
		if name != "" {
			name = filepath.Join(dir, name)
		}
		db, err := s.OpenDB(name)
		require.NoError(t, err)
		require.NoError(t, db.PingContext(t.Context()))
		require.NoError(t, s.Close())
		require.NoError(t, db.Close())
		_, err = os.Stat(path + "-wal")
		require.NoError(t, err)
	}
}

func TestOpenDBRefusesAFileThatTheStoreWouldRefuse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.db")
	path := filepath.Join(dir, "c.db")
	holder(t, path, 1)
	require.NoError(t, os.Link(path, path+"-second"))
	for file, want := range map[string]string{missing: "no catalog yet", path: "more than one name"} {
		for _, name := range []string{"", filepath.Join(dir, "app.db")} {
			db, err := open(t, file).OpenDB(name)
			require.NoError(t, err)
			err = db.PingContext(t.Context())
			require.ErrorContains(t, err, want)
			require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
			require.NoError(t, db.Close())
		}
	}
	_, err := os.Stat(missing)
	require.ErrorIs(t, err, os.ErrNotExist, "no file is made")

	db := database(t, path, "immediate")
	_, err = sqlite.Begin(t.Context(), db, token(1, 1))
	require.ErrorContains(t, err, "more than one name", "nor does a guard trust it by another way")
}

func TestAFileThatWasReplacedUnderAGuardIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	db, err := open(t, path).OpenDB("")
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	tx, err := sqlite.Begin(t.Context(), db, blue.Token())
	require.NoError(t, err)
	require.NoError(t, tx.Rollback())
	require.NoError(t, os.Rename(path, path+"-old"))
	_, err = sqlite.Begin(t.Context(), db, blue.Token())
	require.ErrorContains(t, err, "no longer the one that was opened", "its lock is none that others see")
	require.NoError(t, os.Rename(path+"-old", path))
	tx, err = sqlite.Begin(t.Context(), db, blue.Token())
	require.NoError(t, err)
	require.NoError(t, tx.Rollback())
}

func TestGuardedTransactionsOfOneDBQueue(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	db, err := open(t, path).OpenDB("")
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	first, err := sqlite.Begin(t.Context(), db, blue.Token())
	require.NoError(t, err)
	_, err = sqlite.Begin(t.Context(), db, blue.Token(), sqlite.WaitLimit(time.Millisecond))
	require.ErrorContains(t, err, "which is this one")
	require.ErrorIs(t, err, context.DeadlineExceeded, "it has waited for its turn, and not for SQLite's lock")
	began := make(chan error, 1)
	go func() {
		tx, err := sqlite.Begin(t.Context(), db, blue.Token())
		if err == nil {
			err = tx.Commit()
		}
		began <- err
	}()
	require.NoError(t, first.Commit())
	require.NoError(t, <-began)
	require.ErrorIs(t, first.Rollback(), sql.ErrTxDone, "a deferred one does no harm")
	tx, err := sqlite.Begin(t.Context(), db, blue.Token())
	require.NoError(t, err)
	require.NoError(t, tx.Rollback())
}

func TestAGuardThatFailsLetsTheNextOneBegin(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	raw(t, path, "ALTER TABLE claim RENAME TO hidden")
	db, err := open(t, path).OpenDB("")
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	for range 2 {
		_, err = sqlite.Begin(t.Context(), db, blue.Token())
		require.ErrorIs(t, err, sqlite.ErrNoGuards, "and not that it waited in vain")
	}
	raw(t, path, "ALTER TABLE hidden RENAME TO claim")
	_, err = sqlite.Begin(t.Context(), db, token(9, 9))
	require.ErrorIs(t, err, fence.ErrNeverIssued)
	tx, err := sqlite.Begin(t.Context(), db, blue.Token())
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
}

func TestOpenDBRefusesWhatIsNoName(t *testing.T) {
	t.Parallel()
	_, err := open(t, filepath.Join(t.TempDir(), "c.db")).OpenDB("app.db?%zz")
	require.ErrorContains(t, err, "no name of a database")
}

func TestADeferredTransactionThatCannotWriteAtOnceIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	db := database(t, path, "deferred")
	raws(t, db, "CREATE TABLE orders (n)")
	const remedy = "_txlock=immediate"

	tx := deferred(t, db)
	require.NoError(t, put(t.Context(), blue, "k", nil)) // by this very holder: even so the snapshot is an old one
	err := sqlite.Guard(t.Context(), tx, blue.Token())
	require.ErrorContains(t, err, "others have written since it first read")
	require.ErrorContains(t, err, remedy)
	require.Empty(t, exitcodes.Of(err))
	require.ErrorIs(t, tx.Commit(), sql.ErrTxDone)

	other, err := sqlite.Begin(t.Context(), database(t, path, "immediate"), blue.Token())
	require.NoError(t, err)
	tx = deferred(t, db)
	err = sqlite.Guard(t.Context(), tx, blue.Token())
	require.ErrorContains(t, err, "locked by process")
	require.ErrorContains(t, err, remedy)
	require.NoError(t, other.Rollback())
	require.ErrorIs(t, tx.Commit(), sql.ErrTxDone)
}

// TestADeferredTransactionThatHasReadNothingIsGuardedAsAnImmediateOne has the lock be
// another's: SQLite lets such a transaction wait for it, since it has no snapshot that
// could grow old meanwhile.
func TestADeferredTransactionThatHasReadNothingIsGuardedAsAnImmediateOne(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	db := database(t, path, "deferred&_pragma=busy_timeout(60000)")
	other, err := sqlite.Begin(t.Context(), database(t, path, "immediate"), blue.Token())
	require.NoError(t, err)
	_, err = other.ExecContext(t.Context(), "CREATE TABLE orders (n)")
	require.NoError(t, err)
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	guarded := make(chan error, 1)
	go func() { guarded <- sqlite.Guard(t.Context(), tx, blue.Token()) }()
	require.NoError(t, other.Commit())
	require.NoError(t, <-guarded)
	var n int
	require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT count(*) FROM orders").Scan(&n), "it sees what was written before")
	require.NoError(t, tx.Commit())

	other, err = sqlite.Begin(t.Context(), database(t, path, "immediate"), blue.Token())
	require.NoError(t, err)
	tx, err = database(t, path, "deferred").BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.ErrorContains(t, sqlite.Guard(t.Context(), tx, blue.Token()), "_txlock=immediate", "without a busy_timeout it waits for nobody")
	require.NoError(t, other.Rollback())
}

// deferred begins a transaction that has read.
func deferred(t *testing.T, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(context.Background(), nil)
	require.NoError(t, err)
	var n int
	require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT count(*) FROM orders").Scan(&n))
	return tx
}
