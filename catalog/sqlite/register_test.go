package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// appFile makes an application's file, whose journal is of a mode.
func appFile(t *testing.T, journal string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "app.db")
	raw(t, path, "PRAGMA journal_mode = "+journal, "CREATE TABLE orders (n)")
	return path
}

// appDB opens the application's file as the application does, with one connection that
// waits for nobody.
func appDB(t *testing.T, path, txlock string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock="+txlock)
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func openRegister(t *testing.T, path string) *sqlite.Register {
	t.Helper()
	r, err := sqlite.OpenRegister(path, sqlite.Config{})
	require.NoError(t, err)
	return r
}

// A handle is a way to a register, as processes have one.
type handle struct {
	name string
	open func(t *testing.T, path string) *sqlite.Register
}

func handles() []handle {
	return []handle{
		{"by path", openRegister},
		{"by the application's connections", func(t *testing.T, path string) *sqlite.Register {
			r, err := sqlite.NewRegister(t.Context(), appDB(t, path, "immediate"))
			require.NoError(t, err)
			return r
		}},
		{"attached", func(t *testing.T, path string) *sqlite.Register {
			db := appDB(t, path+"-main", "immediate")
			raws(t, db, `ATTACH '`+path+`' AS "app's ""own"""`)
			r, err := sqlite.NewRegister(t.Context(), db, sqlite.AttachedAs(`app's "own"`))
			require.NoError(t, err)
			return r
		}},
	}
}

// guardedBy runs a guarded transaction that writes one row.
func guardedBy(t *testing.T, db *sql.DB, held fence.Token) error {
	t.Helper()
	tx, err := sqlite.Begin(t.Context(), db, held, sqlite.InRegister())
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(t.Context(), "INSERT INTO orders VALUES (1)")
	require.NoError(t, err)
	return tx.Commit()
}

func TestARegisterInTheApplicationsFileOnlyRisesAndItsGuardsRefuseWhatIsLower(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"WAL", "DELETE", "TRUNCATE"} {
		for _, h := range handles() {
			t.Run(journal+", "+h.name, func(t *testing.T) {
				t.Parallel()
				path := appFile(t, journal)
				r, db, blue := h.open(t, path), appDB(t, path, "immediate"), fence.Holder{Name: "holder 1"}
				require.NoError(t, r.Prove(t.Context(), token(1, 1)))
				require.ErrorIs(t, guardedBy(t, db, token(1, 1)), sqlite.ErrNoGuards, "a proof makes nothing")
				require.NoError(t, r.Raise(t.Context(), token(1, 1), blue))
				require.NoError(t, guardedBy(t, db, token(1, 1)))
				require.NoError(t, r.Raise(t.Context(), token(1, 1), blue), "again")
				require.NoError(t, r.Prove(t.Context(), token(2, 7)))
				require.NoError(t, guardedBy(t, db, token(1, 1)), "a proof changes nothing")
				require.NoError(t, r.Raise(t.Context(), token(2, 7), fence.Holder{Name: "holder 2"}))
				for _, old := range []fence.Token{token(1, 1), token(2, 6), token(1, 9)} {
					for what, err := range map[string]error{"begin": guardedBy(t, db, old), "raise": r.Raise(t.Context(), old, blue), "prove": r.Prove(t.Context(), old)} {
						var refused *fence.Error
						require.ErrorAs(t, sqlite.Refusal(err), &refused, "%s of %v", what, old)
						require.Equal(t, token(2, 7), refused.Current)
						require.Equal(t, "holder 2", refused.By.Name)
						require.Equal(t, "sqlite register", refused.Guard)
						require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
						require.NotErrorIs(t, err, fence.ErrSuperseded)
					}
				}
				require.ErrorIs(t, guardedBy(t, db, token(2, 8)), fence.ErrNeverIssued)
				require.ErrorIs(t, guardedBy(t, db, fence.Token{}), fence.ErrMissing)
				require.NoError(t, guardedBy(t, db, token(2, 7)))
				require.Equal(t, 3, rowsIn(t, db, "orders"))
			})
		}
	}
}

// TestARegisterBesideAnAttachedCatalogIsTheOneThatGuards has both tokens on one
// connection.
func TestARegisterBesideAnAttachedCatalogIsTheOneThatGuards(t *testing.T) {
	t.Parallel()
	path, app := filepath.Join(t.TempDir(), "c.db"), appFile(t, "WAL")
	own := holder(t, path, 7)
	require.NoError(t, openRegister(t, app).Raise(t.Context(), token(2, 2), fence.Holder{}))
	db, err := open(t, path).OpenDB(app)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	for range 2 { // the catalog's statements are kept
		for want, options := range map[fence.Token][]sqlite.GuardOption{own.Token(): nil, token(2, 2): {sqlite.InRegister()}} {
			tx, err := sqlite.Begin(t.Context(), db, want, options...)
			require.NoError(t, err)
			require.NoError(t, tx.Rollback())
			_, err = sqlite.Begin(t.Context(), db, token(1, 1), options...)
			require.Error(t, err)
		}
	}
}

func TestAZeroOrImpossibleTokenRaisesNoRegister(t *testing.T) {
	t.Parallel()
	r := openRegister(t, appFile(t, "WAL"))
	for want, impossible := range map[error]fence.Token{fence.ErrMissing: {}, fence.ErrMalformed: token(1<<63, 1)} {
		require.ErrorIs(t, r.Raise(t.Context(), impossible, fence.Holder{}), want)
		require.ErrorIs(t, r.Prove(t.Context(), impossible), want)
	}
}

func TestRegistersInOneFileThatAreRaisedAtOnceEndAtTheHighest(t *testing.T) {
	t.Parallel()
	path := appFile(t, "DELETE")
	const processes = 8
	var wg sync.WaitGroup
	for i := range processes {
		wg.Go(func() {
			r, err := sqlite.OpenRegister(path, sqlite.Config{})
			assert.NoError(t, err)
			if err := r.Raise(t.Context(), token(1, uint64(i)+1), fence.Holder{}); i == processes-1 || !errors.Is(err, fence.ErrFenced) {
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	var refused *fence.Error
	require.ErrorAs(t, openRegister(t, path).Prove(t.Context(), token(1, processes-1)), &refused)
	require.Equal(t, token(1, processes), refused.Current)
}

// TestARegisterIsMadeInNoFileThatNobodyUses has everything that can be wrong with a
// file, and requires that nothing is made.
func TestARegisterIsMadeInNoFileThatNobodyUses(t *testing.T) {
	t.Parallel()
	claimed := filepath.Join(t.TempDir(), "c.db")
	require.NoError(t, holder(t, claimed, 1).Close())
	absent := filepath.Join(t.TempDir(), "absent.db")
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte("this is no database, however long it may be\n"), 0o644))
	linked := appFile(t, "WAL")
	require.NoError(t, os.Link(linked, linked+"-2"))
	for path, says := range map[string]string{
		absent:               "start the application once",
		claimed:              "by the catalog's own token",
		filepath.Dir(absent): "this is a folder",
		linked:               "more than one name",
		filepath.Join(filepath.Dir(absent), "no", "folder.db"): "there is no such file",
	} {
		for _, err := range raises(t, openRegister(t, path)) {
			require.ErrorContains(t, err, says)
			require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), "%v", err)
		}
	}
	for _, err := range raises(t, openRegister(t, text)) {
		require.ErrorContains(t, err, "not a database")
	}
	require.NoFileExists(t, absent)
	require.NoFileExists(t, text+"-wal")
	empty := filepath.Join(t.TempDir(), "empty.db")
	touch(t, empty)
	require.NoError(t, openRegister(t, empty).Raise(t.Context(), token(1, 1), fence.Holder{}), "an empty file is an empty database")
}

// raiseOf returns a call that raises to a token.
func raiseOf(r *sqlite.Register, to fence.Token) func(context.Context) error {
	return func(ctx context.Context) error { return r.Raise(ctx, to, fence.Holder{}) }
}

// raises returns the errors of a proof and of a raise.
func raises(t *testing.T, r *sqlite.Register) []error {
	t.Helper()
	return []error{r.Prove(t.Context(), token(1, 1)), r.Raise(t.Context(), token(1, 1), fence.Holder{})}
}

func TestALinkToTheApplicationsFileLeadsToTheSameRegister(t *testing.T) {
	t.Parallel()
	path := appFile(t, "WAL")
	link := filepath.Join(t.TempDir(), "link.db")
	require.NoError(t, os.Symlink(path, link))
	require.NoError(t, openRegister(t, link).Raise(t.Context(), token(2, 2), fence.Holder{}))
	require.ErrorIs(t, openRegister(t, path).Prove(t.Context(), token(1, 1)), fence.ErrFenced)
	require.Equal(t, "sqlite:"+path+" (register)", openRegister(t, link).String())
}

func TestADatabaseThatIsInMemoryHasNoRegister(t *testing.T) {
	t.Parallel()
	for _, options := range [][]sqlite.GuardOption{nil, {sqlite.AttachedAs("absent")}} {
		_, err := sqlite.NewRegister(t.Context(), appDB(t, ":memory:", "immediate"), options...)
		require.ErrorContains(t, err, "in memory")
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	}
}

// TestAFileThatIsRestoredUnderARegisterIsRaisedAgain puts an older copy in the place of
// the file, as an operator may.
func TestAFileThatIsRestoredUnderARegisterIsRaisedAgain(t *testing.T) {
	t.Parallel()
	path := appFile(t, "DELETE")
	r := openRegister(t, path)
	require.NoError(t, r.Raise(t.Context(), token(1, 1), fence.Holder{}))
	backup, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, r.Raise(t.Context(), token(2, 2), fence.Holder{}))
	require.NoError(t, os.WriteFile(path+"-restored", backup, 0o644))
	require.NoError(t, os.Rename(path+"-restored", path))
	require.NoError(t, guardedBy(t, appDB(t, path, "immediate"), token(1, 1)), "until it is raised again, the backup's token is the newest")
	require.NoError(t, r.Raise(t.Context(), token(2, 2), fence.Holder{}))
	require.ErrorIs(t, guardedBy(t, appDB(t, path, "immediate"), token(1, 1)), fence.ErrFenced)
}

func TestNoStatementLowersARegister(t *testing.T) {
	t.Parallel()
	path := appFile(t, "WAL")
	r := openRegister(t, path)
	require.NoError(t, r.Raise(t.Context(), token(5, 5), fence.Holder{}))
	db := appDB(t, path, "immediate")
	for _, statement := range []string{
		"DELETE FROM fencepost_token",
		"UPDATE fencepost_token SET generation = 4, token = 'g4.e5'",
		"UPDATE fencepost_token SET epoch = 4, token = 'g5.e4'",
		"INSERT OR REPLACE INTO fencepost_token VALUES (1, 4, 9, 'g4.e9', '{}')",
		"INSERT INTO fencepost_token VALUES (2, 9, 9, 'g9.e9', '{}')",
		"UPDATE fencepost_token SET token = 'g9.e9'",
		"UPDATE fencepost_token SET generation = 'x', token = 'gx.e5'",
	} {
		_, err := db.ExecContext(t.Context(), statement)
		require.Error(t, err, statement)
	}
	require.NoError(t, guardedBy(t, db, token(5, 5)))
	raws(t, db, "PRAGMA recursive_triggers = ON") // as an application may have it
	own, err := sqlite.NewRegister(t.Context(), db)
	require.NoError(t, err)
	require.NoError(t, own.Raise(t.Context(), token(6, 6), fence.Holder{}))
	require.ErrorIs(t, guardedBy(t, db, token(5, 5)), fence.ErrFenced)
}

func TestARaiseEndsATransactionOfBeginThatKeepsItWaitingAndAProofEndsNone(t *testing.T) {
	t.Parallel()
	path := appFile(t, "WAL")
	r, db := openRegister(t, path), appDB(t, path, "immediate")
	require.NoError(t, r.Raise(t.Context(), token(1, 1), fence.Holder{}))
	tx, err := sqlite.Begin(t.Context(), db, token(1, 1), sqlite.InRegister(), sqlite.ClaimAfter(20*time.Millisecond))
	require.NoError(t, err)
	require.NoError(t, r.Prove(t.Context(), token(2, 2)), "it would only have to wait")
	require.ErrorIs(t, r.Prove(t.Context(), token(0, 1)), fence.ErrFenced, "the token is compared all the same")
	_, err = tx.ExecContext(t.Context(), "INSERT INTO orders VALUES (1)")
	require.NoError(t, err, "a proof ends nobody")
	require.NoError(t, r.Raise(t.Context(), token(2, 2), fence.Holder{}))
	require.ErrorContains(t, tx.Commit(), "since a claim waits for it")
	require.Zero(t, rowsIn(t, db, "orders"))
}

func TestATransactionThatKeepsARaiseWaitingIsNamedAndTheRaiseEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for _, h := range handles()[:2] {
		path := appFile(t, "WAL")
		r, db := h.open(t, path), appDB(t, path, "immediate")
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		err = failsBy(t, fmt.Sprintf("process %d, which is this one", os.Getpid()), func(ctx context.Context) error {
			return r.Raise(ctx, token(1, 1), fence.Holder{})
		})
		require.ErrorIs(t, err, driver.ErrBlocked)
		require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
		require.NoError(t, tx.Rollback())
		require.NoError(t, r.Raise(t.Context(), token(1, 1), fence.Holder{}), "the call before has left nothing")
	}
}

// TestWhatStrangersWriteIntoARegisterIsRefusedAndBounded has rows that only somebody
// can have written who has replaced the table.
func TestWhatStrangersWriteIntoARegisterIsRefusedAndBounded(t *testing.T) {
	t.Parallel()
	path := appFile(t, "WAL")
	r, db := openRegister(t, path), appDB(t, path, "immediate")
	for _, row := range []string{
		"NULL, NULL", "'', ''", "'g1', '{}'", "zeroblob(10000000), ''", "'g01.e1', ''", "x'6731FF', ''",
		"7, 7", "replace(printf('%5000c', 'g'), ' ', 'g'), ''", "'g9223372036854775808.e1', ''",
	} {
		raws(t, db, "DROP TABLE IF EXISTS fencepost_token", "CREATE TABLE fencepost_token (one, generation, epoch, token, holder)",
			"INSERT INTO fencepost_token (token, holder) VALUES ("+row+")")
		for _, err := range append(raises(t, r), guardedBy(t, db, token(1, 1))) {
			require.ErrorIs(t, err, driver.ErrCorrupt, row)
			require.Less(t, len(err.Error()), 1000)
		}
	}
	for _, holder := range []string{"''", "NULL", "'[]'", "'{\"name\":1}'", "x'FF'", "'\"'", "replace(printf('%9000c', '['), ' ', '[')"} {
		raws(t, db, "DROP TABLE IF EXISTS fencepost_token", "CREATE TABLE fencepost_token (one, generation, epoch, token, holder)",
			"INSERT INTO fencepost_token VALUES (1, 3, 3, 'g3.e3', "+holder+")")
		require.ErrorIs(t, guardedBy(t, db, token(1, 1)), fence.ErrFenced, holder)
		require.NoError(t, guardedBy(t, db, token(3, 3)), holder)
		require.ErrorIs(t, r.Raise(t.Context(), token(1, 1), fence.Holder{}), fence.ErrFenced)
	}
	for _, shape := range []string{"CREATE TABLE fencepost_token (n)", "CREATE VIEW fencepost_token AS SELECT 'g1.e1' AS token, '' AS holder"} {
		raws(t, db, "DROP TABLE IF EXISTS fencepost_token", shape)
		require.ErrorIs(t, guardedBy(t, db, token(1, 1)), sqlite.ErrNoGuards, shape)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(r.Raise(t.Context(), token(1, 1), fence.Holder{})), shape)
		raws(t, db, map[bool]string{true: "DROP VIEW fencepost_token", false: "DROP TABLE fencepost_token"}[shape[7:11] == "VIEW"])
	}
}
