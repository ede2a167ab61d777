package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testpg"
)

const (
	someSteps = 400
	allSteps  = 100_000 // with FENCEPOST_WHOLE
)

// A writer of the model is one session, whose process may be stale.
type writer struct {
	dsn   string
	conn  *pgx.Conn
	token fence.Token

	tx      pgx.Tx // nil: none is open
	guarded bool   // by the client, else by the database
	began   int    // claims until the transaction's snapshot
	repeats bool   // its snapshot is that of its beginning
	rows    []int
}

// A model knows what the guards must answer.
type model struct {
	t      *testing.T
	random *rand.Rand
	store  *postgres.Store

	newest    fence.Token
	claims    int
	writers   []*writer
	row       int
	committed map[int]bool
}

// TestGuardsAnswerAsTheModelSays plays random steps of several writers, of which
// some are stale, and of claims. No step of one overlaps with one of another, but
// transactions do.
func TestGuardsAnswerAsTheModelSays(t *testing.T) {
	t.Parallel()
	steps := someSteps
	if os.Getenv(drivertest.WholeVar) != "" {
		steps = allSteps
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dsn := testpg.URL(t)
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{GuardTimeout: time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	m := &model{t: t, random: rand.New(rand.NewPCG(seed, 0)), store: s, committed: map[int]bool{}}
	m.newest = drivertest.Install(t, s, 1).Claim.Token
	testpg.Exec(t, dsn, `create table rows (n int primary key)`, `create table guarded (n int primary key)`)
	require.NoError(t, s.InstallGuards(within(t, soon), driver.GuardedTables{Tables: []string{"guarded"}}))
	for range 4 {
		m.writers = append(m.writers, &writer{dsn: dsn, conn: testpg.Connect(t, dsn), token: m.newest})
	}
	for step := range steps {
		w := m.writers[m.random.IntN(len(m.writers))]
		switch n := m.random.IntN(100); {
		case n < 6:
			m.claim()
		case w.tx == nil && n < 30:
			w.token = m.newest // the process has restarted
		case w.tx == nil:
			m.begin(w)
		case n < 60:
			m.write(w)
		case n < 95:
			m.commit(w)
		default:
			require.NoError(t, w.tx.Rollback(within(t, soon)))
			w.tx = nil
		}
		if t.Failed() {
			t.Fatalf("seed %d, step %d", seed, step)
		}
	}
	for _, w := range m.writers {
		if w.tx != nil {
			m.commit(w)
		}
	}
	m.compare(dsn)
}

// claim claims over everybody. Transactions that the client guards don't outlive it.
func (m *model) claim() {
	head := drivertest.Install(m.t, m.store, m.newest.Generation+generationStep(m.random))
	m.newest, m.claims = head.Claim.Token, m.claims+1
	for _, w := range m.writers {
		if w.tx != nil && w.guarded {
			require.Error(m.t, w.tx.Commit(within(m.t, soon)), "the claim has waited for it, or ended it")
			w.tx, w.conn = nil, testpg.Connect(m.t, w.dsn)
		}
	}
}

func generationStep(r *rand.Rand) generation.Generation { return generation.Generation(r.IntN(2)) }

func (m *model) begin(w *writer) {
	w.guarded, w.repeats, w.rows = m.random.IntN(2) == 0, m.random.IntN(2) == 0, nil
	options := pgx.TxOptions{IsoLevel: pgx.ReadCommitted}
	if w.repeats {
		options.IsoLevel = []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable}[m.random.IntN(2)]
	}
	ctx := within(m.t, soon)
	var err error
	if w.guarded {
		w.tx, err = postgres.Begin(ctx, w.conn, w.token, postgres.WithTxOptions(options))
		if w.token != m.newest {
			require.ErrorIs(m.t, err, fence.ErrFenced)
			w.tx = nil
			return
		}
		require.NoError(m.t, err)
		return
	}
	w.tx, err = w.conn.BeginTx(ctx, options)
	require.NoError(m.t, err)
	_, err = w.tx.Exec(ctx, fmt.Sprintf(`select set_config('fencepost.token', '%v', true)`, w.token)) // the snapshot, too
	require.NoError(m.t, err)
	w.began = m.claims
}

func (m *model) write(w *writer) {
	table := map[bool]string{true: "rows", false: "guarded"}[w.guarded]
	m.row++
	_, err := w.tx.Exec(within(m.t, soon), `insert into `+table+` values ($1)`, m.row)
	require.NoError(m.t, err)
	w.rows = append(w.rows, m.row)
}

func (m *model) commit(w *writer) {
	err := w.tx.Commit(within(m.t, soon))
	w.tx = nil
	if !w.guarded && len(w.rows) > 0 && w.token != m.newest {
		if w.repeats && w.began < m.claims {
			require.Error(m.t, err, "its snapshot is older than the claim, or its token is")
		} else {
			require.ErrorIs(m.t, postgres.Refusal(err), fence.ErrFenced)
		}
		return
	}
	require.NoError(m.t, err)
	for _, row := range w.rows {
		m.committed[row] = true
	}
}

// compare holds the tables against what was acknowledged.
func (m *model) compare(dsn string) {
	rows, err := testpg.Connect(m.t, dsn).Query(m.t.Context(), `select n from rows union all select n from guarded`)
	require.NoError(m.t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[int])
	require.NoError(m.t, err)
	require.Len(m.t, all, len(m.committed))
	for _, row := range all {
		require.True(m.t, m.committed[row], row)
	}
}
