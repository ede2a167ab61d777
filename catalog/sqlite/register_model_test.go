package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// A registerModel is what ought to be: which token the register holds, who has the lock,
// and what each writer has done.
type registerModel struct {
	t       *testing.T
	random  *rand.Rand
	now     fence.Token // zero before the first raise
	locked  int         // by which writer; -1 by none
	writers []*registerWriter
}

type registerWriter struct {
	db      *sql.DB
	r       *sqlite.Register
	options []sqlite.GuardOption
	table   string
	tx      *sql.Tx
	writes  int // of this transaction
	rows    int // that are committed
}

// TestRegistersInRandomStepsAgreeWithAModel plays random steps of several writers and
// raises, each of which has to end as the model says.
func TestRegistersInRandomStepsAgreeWithAModel(t *testing.T) {
	t.Parallel()
	steps, seed := 400, rand.Uint64()
	if os.Getenv(drivertest.WholeVar) != "" {
		steps = 100_000
	}
	t.Log("seed", seed)
	path := filepath.Join(t.TempDir(), "app.db")
	raw(t, path, "PRAGMA journal_mode = WAL", "CREATE TABLE main0 (n)", "CREATE TABLE main1 (n)", "CREATE TABLE main2 (n)")
	m := &registerModel{t: t, random: rand.New(rand.NewPCG(seed, 1)), locked: -1}
	for i, open := range []func() (*sql.DB, []sqlite.GuardOption){
		func() (*sql.DB, []sqlite.GuardOption) { return appDB(t, path, "immediate"), nil },
		func() (*sql.DB, []sqlite.GuardOption) { return appDB(t, path, "deferred"), nil },
		func() (*sql.DB, []sqlite.GuardOption) {
			db := appDB(t, path+"-main", "deferred")
			raws(t, db, `ATTACH '`+path+`' AS own`)
			return db, []sqlite.GuardOption{sqlite.AttachedAs("own")}
		},
	} {
		db, options := open()
		raws(t, db, "PRAGMA synchronous = OFF")
		r, err := sqlite.NewRegister(t.Context(), db, options...)
		require.NoError(t, err)
		if i == 0 {
			r = openRegister(t, path)
		}
		table := []string{"main0", "main1", "own.main2"}[i]
		m.writers = append(m.writers, &registerWriter{db: db, r: r, options: append(options, sqlite.InRegister()), table: table})
	}
	for range steps {
		m.step(m.random.IntN(len(m.writers)))
	}
	for i, w := range m.writers {
		if w.tx != nil {
			m.end(i, w.tx.Rollback())
		}
	}
}

func (m *registerModel) step(i int) {
	w := m.writers[i]
	switch dice := m.random.IntN(16); {
	case dice < 3:
		m.raise(i)
	case w.tx == nil:
		m.begin(i)
	case dice < 8:
		_, err := w.tx.ExecContext(m.t.Context(), "INSERT INTO "+w.table+" VALUES (1)")
		require.NoError(m.t, err)
		w.writes++
	case dice < 11:
		given, want := m.anyToken()
		err := sqlite.Guard(m.t.Context(), w.tx, given, w.options...)
		m.requireIs(err, want, given)
		if want != nil {
			require.ErrorIs(m.t, w.tx.Commit(), sql.ErrTxDone)
			m.end(i, nil)
		}
	case dice < 13:
		m.end(i, w.tx.Rollback())
	default:
		require.NoError(m.t, w.tx.Commit())
		w.rows += w.writes
		m.end(i, nil)
	}
}

// begin begins a transaction that holds the lock, whatever else fails in it.
func (m *registerModel) begin(i int) {
	w := m.writers[i]
	given, want := m.anyToken()
	tx, err := w.db.BeginTx(m.t.Context(), nil)
	if err == nil {
		err = sqlite.Guard(m.t.Context(), tx, given, w.options...)
	}
	switch {
	case errors.Is(want, fence.ErrMissing) && err != nil: // before it asks for the lock
	case m.locked >= 0:
		require.Error(m.t, err)
	default:
		m.requireIs(err, want, given)
		if want == nil {
			w.tx, m.locked = tx, i
		}
	}
}

// raise raises or proves, which only a lock or a lower token keeps from succeeding.
func (m *registerModel) raise(i int) {
	w := m.writers[i]
	given, _ := m.anyToken()
	if m.random.IntN(2) == 0 {
		given = fence.Token{Generation: m.now.Generation + generation.Generation(m.random.IntN(3)), Epoch: m.now.Epoch + 1}
	}
	if w.tx != nil { // its one connection is in use
		return
	}
	ctx, cancel := m.t.Context(), func() {}
	proves := m.random.IntN(2) == 0
	if m.locked >= 0 && !proves {
		ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
	}
	defer cancel()
	var err error
	if proves {
		err = w.r.Prove(ctx, given)
	} else {
		err = w.r.Raise(ctx, given, fence.Holder{Name: "model"})
	}
	switch {
	case given.IsZero():
		require.ErrorIs(m.t, err, fence.ErrMissing)
	case given.Compare(m.now) < 0 && (proves || m.locked < 0):
		require.ErrorIs(m.t, err, fence.ErrFenced)
	case proves:
		require.NoError(m.t, err)
	case m.locked >= 0:
		require.Error(m.t, err)
	default:
		require.NoError(m.t, err)
		m.now = given
	}
}

// anyToken returns a token, and what a guard ought to say of it.
func (m *registerModel) anyToken() (fence.Token, error) {
	given := m.now
	switch m.random.IntN(8) {
	case 0:
		given = fence.Token{}
	case 1:
		given.Epoch++
	case 2:
		given.Generation++
	case 3:
		given.Generation = generation.Generation(m.random.IntN(int(m.now.Generation) + 1))
	}
	switch {
	case given.IsZero():
		return given, fence.ErrMissing
	case m.now.IsZero():
		return given, sqlite.ErrNoGuards
	case given.Compare(m.now) > 0:
		return given, fence.ErrNeverIssued
	case given.Compare(m.now) < 0:
		return given, fence.ErrFenced
	}
	return given, nil
}

func (m *registerModel) requireIs(err, want error, given fence.Token) {
	m.t.Helper()
	if want == nil {
		require.NoError(m.t, err)
		return
	}
	require.ErrorIs(m.t, err, want, "%v over %v", given, m.now)
}

func (m *registerModel) end(i int, err error) {
	w := m.writers[i]
	require.NoError(m.t, err)
	w.tx, w.writes, m.locked = nil, 0, -1
	require.Equal(m.t, w.rows, rowsIn(m.t, w.db, w.table))
}
