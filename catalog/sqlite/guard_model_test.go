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

// A model is what ought to be: who has the lock, which tokens were issued, and what each
// writer has done.
type model struct {
	t       *testing.T
	random  *rand.Rand
	path    string
	store   *sqlite.Store
	issued  []fence.Token // in order
	locked  int           // by which writer; -1 by none
	writers []*modelWriter
}

type modelWriter struct {
	layout layout
	db     *sql.DB
	tx     interface {
		transaction
		Rollback() error
	}
	plain   *sql.Tx // tx, unless Begin has begun it
	guarded bool
	writes  int // of this transaction
	rows    int // that are committed
}

func (m *model) newest() fence.Token { return m.issued[len(m.issued)-1] }

// TestRandomStepsAgreeWithAModel plays random steps of several writers and of claims,
// each of which has to end as the model says.
func TestRandomStepsAgreeWithAModel(t *testing.T) {
	t.Parallel()
	steps, seed := 400, rand.Uint64()
	if os.Getenv(drivertest.WholeVar) != "" {
		steps = 100_000
	}
	t.Log("seed", seed)
	path := filepath.Join(t.TempDir(), "c.db")
	m := &model{t: t, random: rand.New(rand.NewPCG(seed, 1)), path: path, store: open(t, path), locked: -1}
	m.issued = append(m.issued, drivertest.Install(t, m.store, 1).Claim.Token)
	for i, l := range layouts() {
		name := []string{"mine", "beside", "app.attached"}[i]
		w := &modelWriter{layout: l, db: l.open(t, path, "immediate")}
		w.layout.table = name
		raws(t, w.db, "CREATE TABLE "+name+" (n)", "PRAGMA synchronous = OFF")
		m.writers = append(m.writers, w)
	}
	for range steps {
		m.step(m.random.IntN(len(m.writers)))
	}
	for i, w := range m.writers {
		if w.tx != nil {
			m.rollback(i)
		}
	}
}

func (m *model) step(i int) {
	w := m.writers[i]
	switch dice := m.random.IntN(20); {
	case dice == 0:
		m.claim()
	case w.tx == nil && dice < 10:
		m.begin(i)
	case w.tx == nil:
		m.beginGuarded(i)
	case dice < 6 && w.plain != nil:
		m.guard(i)
	case dice < 12:
		_, err := w.tx.ExecContext(m.t.Context(), "INSERT INTO "+w.layout.table+" VALUES (1)")
		require.NoError(m.t, err)
		w.writes++
	case dice < 14: // a savepoint that is left keeps the lock
		for _, s := range []string{"SAVEPOINT s", "INSERT INTO " + w.layout.table + " VALUES (1)", "ROLLBACK TO s", "RELEASE s"} {
			_, err := w.tx.ExecContext(m.t.Context(), s)
			require.NoError(m.t, err)
		}
	case dice < 16 || !w.guarded:
		m.rollback(i)
	default:
		m.commit(i)
	}
}

// claim succeeds unless a transaction has the lock.
func (m *model) claim() {
	ctx, cancel := m.t.Context(), func() {}
	if m.locked >= 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Millisecond)
	}
	defer cancel()
	c, err := m.store.Claim(ctx)
	if m.locked >= 0 {
		require.Error(m.t, err)
		return
	}
	require.NoError(m.t, err)
	next := drivertest.NextClaim(m.t, c.Head(), m.newest().Generation+generation.Generation(m.random.IntN(3)))
	require.NoError(m.t, c.Install(m.t.Context(), next, drivertest.ClaimRecord(next)))
	m.issued = append(m.issued, next.Token)
}

// anyToken returns a token, and what a guard ought to say of it.
func (m *model) anyToken() (fence.Token, error) {
	newest := m.newest()
	switch m.random.IntN(8) {
	case 0:
		return fence.Token{}, fence.ErrMissing
	case 1:
		return token(uint64(newest.Generation), uint64(newest.Epoch)+1), fence.ErrNeverIssued
	case 2:
		return token(uint64(newest.Generation)+1, uint64(newest.Epoch)), fence.ErrNeverIssued
	case 3:
		return token(0, uint64(newest.Epoch)), fence.ErrNeverIssued
	case 4:
		old := m.issued[m.random.IntN(len(m.issued))]
		if old != newest {
			return old, fence.ErrFenced
		}
	}
	return newest, nil
}

func (m *model) begin(i int) {
	w := m.writers[i]
	tx, err := w.db.BeginTx(m.t.Context(), nil)
	if m.locked >= 0 {
		require.ErrorContains(m.t, err, "SQLITE_BUSY")
		return
	}
	require.NoError(m.t, err)
	w.tx, w.plain, m.locked = tx, tx, i
}

func (m *model) beginGuarded(i int) {
	w := m.writers[i]
	given, want := m.anyToken()
	options := w.layout.options
	if m.locked >= 0 {
		options = append(options[:len(options):len(options)], sqlite.WaitLimit(time.Millisecond))
	}
	tx, err := sqlite.Begin(m.t.Context(), w.db, given, options...)
	switch {
	case errors.Is(want, fence.ErrMissing):
		require.ErrorIs(m.t, err, want)
	case m.locked >= 0:
		require.Error(m.t, err)
	default:
		m.refused(given, want, err)
		if want == nil {
			w.tx, w.guarded, m.locked = tx, true, i
		}
	}
}

func (m *model) guard(i int) {
	w := m.writers[i]
	given, want := m.anyToken()
	m.refused(given, want, sqlite.Guard(m.t.Context(), w.plain, given, w.layout.options...))
	if want == nil {
		w.guarded = true
		return
	}
	require.ErrorIs(m.t, w.tx.Commit(), sql.ErrTxDone)
	m.ended(i)
}

// refused requires that err is what the model says of a token.
func (m *model) refused(given fence.Token, want, err error) {
	m.t.Helper()
	if want == nil {
		require.NoError(m.t, err)
		return
	}
	require.ErrorIs(m.t, err, want, "%v over %v", given, m.newest())
	require.Equal(m.t, errors.Is(want, fence.ErrFenced), errors.Is(err, fence.ErrFenced))
}

func (m *model) rollback(i int) {
	require.NoError(m.t, m.writers[i].tx.Rollback())
	m.ended(i)
}

func (m *model) commit(i int) {
	w := m.writers[i]
	require.NoError(m.t, w.tx.Commit())
	w.rows += w.writes
	m.ended(i)
}

func (m *model) ended(i int) {
	w := m.writers[i]
	w.tx, w.plain, w.guarded, w.writes, m.locked = nil, nil, false, 0, -1
	require.Equal(m.t, w.rows, rowsIn(m.t, w.db, w.layout.table))
	head, err := m.store.Head(m.t.Context())
	require.NoError(m.t, err)
	require.Equal(m.t, m.newest(), head.Claim.Token)
}

// A transaction is what an application's and a guarded one have in common.
type transaction interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	Commit() error
}
