package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	client "modernc.org/sqlite"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// holder opens a catalog of a generation, which is the holder's then.
func holder(t *testing.T, path string, g uint64) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), open(t, path), catalog.Config{Generation: generation.Generation(g), Holder: fence.Holder{Name: fmt.Sprint("holder ", g)}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() }) // a newer one may have superseded it
	return c
}

// A layout says where the application's table is, and how its database is named.
type layout struct {
	name     string
	table    string
	attached bool // the catalog's file, to the application's
	options  []sqlite.GuardOption
	open     func(t *testing.T, path, txlock string) *sql.DB
}

// layouts are all of them: in the catalog's file; in the application's own, with the
// catalog's attached; and in one that is attached to the catalog's.
func layouts() []layout {
	return []layout{
		{"in the catalog's file", "orders", false, nil, func(t *testing.T, path, txlock string) *sql.DB {
			return database(t, path, txlock)
		}},
		{"the catalog's file attached", "orders", true, []sqlite.GuardOption{sqlite.AttachedAs("cat log")}, func(t *testing.T, path, txlock string) *sql.DB {
			db := database(t, path+"-app", txlock)
			raws(t, db, `ATTACH '`+path+`' AS "cat log"`)
			return db
		}},
		{"attached to the catalog's file", "app.orders", false, nil, func(t *testing.T, path, txlock string) *sql.DB {
			db := database(t, path, txlock)
			raws(t, db, `ATTACH '`+path+`-app' AS app`, `PRAGMA app.journal_mode = WAL`)
			return db
		}},
	}
}

// database opens a file with one connection, which waits for nobody.
func database(t *testing.T, path, txlock string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_txlock="+txlock)
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func raws(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := db.ExecContext(t.Context(), s)
		require.NoError(t, err, s)
	}
}

func rowsIn(t *testing.T, db *sql.DB, table string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}

func token(g, e uint64) fence.Token {
	return fence.Token{Generation: generation.Generation(g), Epoch: epoch.Epoch(e)}
}

func TestAGuardedTransactionCommitsUnderTheNewestTokenAndNoOther(t *testing.T) {
	t.Parallel()
	for _, l := range layouts() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "c.db")
			blue := holder(t, path, 1)
			db := l.open(t, path, "deferred")
			raws(t, db, "CREATE TABLE "+l.table+" (n)")

			tx, err := sqlite.Begin(t.Context(), db, blue.Token(), l.options...)
			require.NoError(t, err)
			_, err = tx.ExecContext(t.Context(), "INSERT INTO "+l.table+" VALUES (1)")
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
			require.Equal(t, 1, rowsIn(t, db, l.table))
			plain, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			_, err = plain.ExecContext(t.Context(), "INSERT INTO "+l.table+" VALUES (2)")
			require.NoError(t, err)
			require.NoError(t, sqlite.Guard(t.Context(), plain, blue.Token(), l.options...), "behind the write too")
			require.NoError(t, plain.Commit())

			green := holder(t, path, 2)
			_, err = sqlite.Begin(t.Context(), db, blue.Token(), l.options...)
			stale(t, err, blue.Token(), green.Token())
			plain, err = db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			_, err = plain.ExecContext(t.Context(), "INSERT INTO "+l.table+" VALUES (3)")
			require.NoError(t, err)
			stale(t, sqlite.Guard(t.Context(), plain, blue.Token(), l.options...), blue.Token(), green.Token())
			require.ErrorIs(t, plain.Commit(), sql.ErrTxDone, "one whose refusal was ignored can't commit")
			require.Equal(t, 2, rowsIn(t, db, l.table))
		})
	}
}

// stale requires that err is a hint, which only the head turns into more.
func stale(t *testing.T, err error, held, current fence.Token) {
	t.Helper()
	var refused *fence.Error
	require.ErrorAs(t, sqlite.Refusal(err), &refused)
	require.Equal(t, held, refused.Held)
	require.Equal(t, current, refused.Current)
	require.Equal(t, fmt.Sprint("holder ", uint64(current.Generation)), refused.By.Name)
	require.Equal(t, "sqlite catalog", refused.Guard)
	require.ErrorIs(t, err, fence.ErrFenced)
	require.NotErrorIs(t, err, fence.ErrSuperseded)
	require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
}

func TestTheHeadExplainsARefusal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	holder(t, path, 2)
	_, err := sqlite.Begin(t.Context(), database(t, path, "immediate"), blue.Token())
	require.NotErrorIs(t, err, fence.ErrSuperseded)
	require.ErrorIs(t, blue.Explain(t.Context(), err), fence.ErrSuperseded)
}

func TestWhatNoGuardHasSaidIsNoRefusal(t *testing.T) {
	t.Parallel()
	for _, err := range []error{nil, errors.New("another"), fence.Check(token(1, 1), token(2, 2), fence.Holder{}), &driver.Error{Err: errors.New("full")}} {
		require.NoError(t, sqlite.Refusal(err), "%v", err)
	}
}

func TestATokenThatWasNeverIssuedIsNeverFenced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	holder(t, path, 3)
	holder(t, path, 3)
	holder(t, path, 7)
	db := database(t, path, "immediate")
	for given, want := range map[fence.Token]error{
		{}:                      fence.ErrMissing,
		token(3, 3):             fence.ErrNeverIssued,
		token(2, 1):             fence.ErrNeverIssued,
		token(7, 2):             fence.ErrNeverIssued,
		token(7, 4):             fence.ErrNeverIssued,
		token(9, 9):             fence.ErrNeverIssued,
		token(1<<63, 1):         fence.ErrMalformed,
		token(7, 1<<63):         fence.ErrMalformed,
		token(1<<64-1, 1<<64-1): fence.ErrMalformed,
		token(1<<63-1, 1<<63-1): fence.ErrNeverIssued,
	} {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		guarded := sqlite.Guard(t.Context(), tx, given)
		_, began := sqlite.Begin(t.Context(), db, given)
		for _, err := range []error{guarded, began} {
			var refused *fence.TokenError
			require.ErrorAs(t, sqlite.Refusal(err), &refused, "%v", given)
			require.ErrorIs(t, err, want)
			require.NotErrorIs(t, err, fence.ErrFenced)
			require.LessOrEqual(t, len(refused.Token), 64)
		}
	}
	for _, held := range []fence.Token{token(3, 1), token(3, 2)} {
		_, err := sqlite.Begin(t.Context(), db, held)
		stale(t, err, held, token(7, 3))
	}
}

func TestADatabaseWithoutAGuardIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "app.db")
	db := database(t, path, "immediate")
	for _, made := range []string{`CREATE TABLE orders (n)`, `CREATE TABLE claim (n)`} {
		raws(t, db, made)
		for _, schema := range []string{"main", "temp", `no"such`, "", "main; DROP TABLE orders"} {
			_, err := sqlite.Begin(t.Context(), db, token(1, 1), sqlite.AttachedAs(schema))
			require.ErrorIs(t, err, sqlite.ErrNoGuards, schema)
			require.Error(t, sqlite.Refusal(err))
			require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
		}
	}
	require.Zero(t, rowsIn(t, db, "orders"))
}

func TestAGuardWritesNothingIntoTheCatalogsFile(t *testing.T) {
	t.Parallel()
	for _, l := range layouts()[1:] {
		path := filepath.Join(t.TempDir(), "c.db")
		blue := holder(t, path, 1)
		db := l.open(t, path, "immediate")
		raws(t, db, "CREATE TABLE "+l.table+" (n)")
		size := func() [2]int64 {
			file, err := os.Stat(path)
			require.NoError(t, err)
			wal, err := os.Stat(path + "-wal")
			require.NoError(t, err)
			return [2]int64{file.Size(), wal.Size()}
		}
		before := size()
		for i := range 20 {
			tx, err := sqlite.Begin(t.Context(), db, blue.Token(), l.options...)
			require.NoError(t, err)
			_, err = tx.ExecContext(t.Context(), "INSERT INTO "+l.table+" VALUES (?)", i)
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
		}
		require.Equal(t, before, size(), l.name)
		require.Equal(t, 20, rowsIn(t, db, l.table))
	}
}

func TestAStatementBehindAnAutomaticRollbackIsNotCommittedByItself(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	db := database(t, path, "immediate")
	raws(t, db, "CREATE TABLE orders (n PRIMARY KEY)", "INSERT INTO orders VALUES (1)")
	for _, undo := range []string{"INSERT OR ROLLBACK INTO orders VALUES (1)", "ROLLBACK", "COMMIT", "ROLLBACK; BEGIN"} {
		tx, err := sqlite.Begin(t.Context(), db, blue.Token())
		require.NoError(t, err)
		_, _ = tx.ExecContext(t.Context(), undo) // an application that looks at no error
		_, err = tx.ExecContext(t.Context(), "INSERT INTO orders VALUES (2)")
		if undo != "ROLLBACK; BEGIN" {
			require.Error(t, err, undo)
		}
		err = tx.Commit()
		require.Error(t, err, undo)
		if undo != "COMMIT" {
			require.ErrorContains(t, err, "has rolled the transaction back", undo)
		}
		require.Equal(t, 1, rowsIn(t, db, "orders"), undo)
	}
	raws(t, db, "INSERT INTO orders VALUES (2)") // the connection is as it was
	require.Equal(t, 2, rowsIn(t, db, "orders"))
}

func TestTheErrorOfACommitIsSQLitesOwn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	db := database(t, path, "immediate")
	raws(t, db, "PRAGMA foreign_keys = ON", "CREATE TABLE orders (n PRIMARY KEY)",
		"CREATE TABLE items (n REFERENCES orders (n) DEFERRABLE INITIALLY DEFERRED)")
	tx, err := sqlite.Begin(t.Context(), db, blue.Token())
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "INSERT INTO items VALUES (1)")
	require.NoError(t, err)
	var own *client.Error
	err = tx.Commit()
	require.ErrorAs(t, err, &own)
	require.Equal(t, own, err)
	require.NoError(t, sqlite.Refusal(err))
	require.Zero(t, rowsIn(t, db, "items"))
	raws(t, db, "INSERT INTO orders VALUES (1)")
}

func TestAGuardedTransactionThatEndsWithItsContextGivesItsConnectionBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	db := database(t, path, "immediate")
	raws(t, db, "CREATE TABLE orders (n)")
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := sqlite.Begin(ctx, db, blue.Token())
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "INSERT INTO orders VALUES (1)")
	require.NoError(t, err)
	cancel() // and neither Commit nor Rollback is called
	require.Zero(t, rowsIn(t, db, "orders"), "there is one connection")
	require.ErrorIs(t, tx.Commit(), context.Canceled)
	require.NoError(t, put(t.Context(), blue, "k", nil), "the lock has gone too")
}

// TestAnApplicationThatWaitsForItsOwnCatalogInAGuardedTransactionIsFreedByTheLimit
// plays what nobody should do.
func TestAnApplicationThatWaitsForItsOwnCatalogInAGuardedTransactionIsFreedByTheLimit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(t, path)
	blue := holder(t, path, 1)
	db := database(t, path, "immediate")
	tx, err := sqlite.Begin(t.Context(), db, blue.Token(), sqlite.TotalLimit(time.Hour))
	require.NoError(t, err)
	failsBy(t, fmt.Sprintf("process %d, which is this one: end the transaction", os.Getpid()), func(ctx context.Context) error {
		return s.Append(ctx, blue.Head(), driver.Record{Revision: blue.Head().Revision + 1, Token: blue.Token()})
	})
	require.NoError(t, tx.Rollback())
	tx, err = sqlite.Begin(t.Context(), db, blue.Token(), sqlite.TotalLimit(300*time.Millisecond))
	require.NoError(t, err)
	require.NoError(t, put(t.Context(), blue, "k", nil), "it goes on once the limit has ended the transaction")
	err = tx.Commit()
	require.ErrorContains(t, err, "it took too long")
	require.ErrorContains(t, err, "the limit is 300ms")
	require.ErrorContains(t, err, "wait for nothing in a guarded transaction")
}

func TestAnIdleGuardedTransactionDelaysAClaimByNoMoreThanItsBound(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	db := database(t, path, "immediate")
	raws(t, db, "CREATE TABLE orders (n)")
	tx, err := sqlite.Begin(t.Context(), db, blue.Token(), sqlite.ClaimAfter(100*time.Millisecond), sqlite.TotalLimit(time.Hour))
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "INSERT INTO orders VALUES (1)")
	require.NoError(t, err)
	green := holder(t, path, 2)
	err = tx.Commit()
	require.ErrorContains(t, err, "a claim waits for it")
	require.Empty(t, exitcodes.Of(err))
	require.Zero(t, rowsIn(t, db, "orders"))
	_, err = sqlite.Begin(t.Context(), db, blue.Token())
	stale(t, err, blue.Token(), green.Token())
}

// TestAGuardedTransactionIsEndedForAClaimOnceThereIsOne measures the time without a claim
// by another transaction, which its own limit ends.
func TestAGuardedTransactionIsEndedForAClaimOnceThereIsOne(t *testing.T) {
	t.Parallel()
	begin := func(options ...sqlite.GuardOption) (*sqlite.Store, *sqlite.Tx) {
		path := filepath.Join(t.TempDir(), "c.db")
		s := open(t, path)
		held := drivertest.Install(t, s, 1).Claim.Token
		tx, err := sqlite.Begin(t.Context(), database(t, path, "immediate"), held, options...)
		require.NoError(t, err)
		return s, tx
	}
	alive := func(tx *sqlite.Tx) bool {
		_, err := tx.ExecContext(t.Context(), "SELECT 1")
		return err == nil
	}
	s, tx := begin(sqlite.ClaimAfter(time.Millisecond), sqlite.TotalLimit(time.Hour))
	_, later := begin(sqlite.TotalLimit(100 * time.Millisecond))
	require.Eventually(t, func() bool { return !alive(later) }, time.Minute, time.Millisecond)
	require.ErrorContains(t, later.Rollback(), "it took too long")
	require.True(t, alive(tx), "nobody has claimed")
	drivertest.Install(t, s, 2)
	require.ErrorContains(t, tx.Commit(), "a claim waits for it")
}

// TestNewGuardedTransactionsWaitForAClaim has a claim wait for SQLite's lock. Clients
// that guard in tight loops would starve one that only competed for it.
func TestNewGuardedTransactionsWaitForAClaim(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := holder(t, path, 1)
	db := database(t, path, "immediate")
	claimer, err := os.OpenFile(path+"-claim", os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, claimer.Close()) }()
	require.NoError(t, unix.Flock(int(claimer.Fd()), unix.LOCK_EX))
	err = failsBy(t, "a claim is under way, by process", func(ctx context.Context) error {
		_, err := sqlite.Begin(ctx, db, blue.Token())
		return err
	})
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.ErrorContains(t, sqlite.Guard(t.Context(), tx, blue.Token()), "a claim is under way", "it lets go")
	began := make(chan error, 1)
	go func() {
		tx, err := sqlite.Begin(t.Context(), db, blue.Token())
		if err == nil {
			err = tx.Rollback()
		}
		began <- err
	}()
	require.NoError(t, unix.Flock(int(claimer.Fd()), unix.LOCK_UN))
	require.NoError(t, <-began)
}

// TestAGuardsLookForAClaimIsOverBeforeTheTransactionGoesOn has the lock of claims be free
// while a guarded transaction is under way: the claim only waits for SQLite's.
func TestAGuardsLookForAClaimIsOverBeforeTheTransactionGoesOn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	held := drivertest.Install(t, open(t, path), 1).Claim.Token
	db := database(t, path, "immediate")
	other, err := os.OpenFile(path+"-claim", os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	lock := func(how int) { // a child that another test has just forked may have a copy of the guard's file, until it executes its program
		require.Eventually(t, func() bool { return unix.Flock(int(other.Fd()), how|unix.LOCK_NB) == nil }, 5*time.Second, time.Millisecond)
	}
	for range 3 {
		lock(unix.LOCK_SH) // as another writer does, who looks at the same time
		tx, err := sqlite.Begin(t.Context(), db, held)
		require.NoError(t, err)
		lock(unix.LOCK_EX)
		lock(unix.LOCK_SH)
		require.NoError(t, tx.Commit())
		plain, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, sqlite.Guard(t.Context(), plain, held))
		lock(unix.LOCK_EX)
		require.NoError(t, plain.Commit())
	}
}

// failsBy requires that fn fails as text says, before its context ends or when it does,
// and lends it more time until it has come that far.
func failsBy(t *testing.T, text string, fn func(context.Context) error) error {
	t.Helper()
	for limit := 30 * time.Millisecond; ; limit *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err := fn(ctx)
		cancel()
		require.Error(t, err)
		if strings.Contains(err.Error(), text) || limit > time.Minute {
			require.ErrorContains(t, err, text)
			return err
		}
	}
}
