package etcd_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func TestInRandomStepsTheRowsAreThoseOfAModelInWhichOnlyTheNewestHolderWrites(t *testing.T) {
	t.Parallel()
	for name, elsewhere := range map[string]bool{"the catalog's cluster": false, "another cluster": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			playModel(t, elsewhere)
		})
	}
}

// playModel plays random steps. If the catalog is elsewhere, raises of a register stand
// for its claims.
func playModel(t *testing.T, elsewhere bool) {
	steps := 400
	if os.Getenv(drivertest.WholeVar) != "" {
		steps = 100_000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	m := &guardModel{guardedRows: newGuardedRows(t), Rand: rand.New(rand.NewPCG(seed, 0)), rows: map[string]string{}}
	if elsewhere {
		m.register = openRegister(t, "etcd:///"+m.prefix, etcd.Config{Client: m.client})
	}
	m.claim()
	for n := range steps {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		m.step(ctx)
		cancel()
		if n%8 == 0 || n == steps-1 {
			require.Equal(t, m.rows, m.values(), "step %d", n)
		}
	}
	require.Positive(t, m.accepted)
	require.Positive(t, m.refused)
	require.Positive(t, m.unmet)
}

// A guardModel knows who holds the token, and what the rows are.
type guardModel struct {
	*guardedRows
	*rand.Rand
	register *etcd.Register    // nil: the catalog's own token guards
	holders  []*etcd.GuardedKV // the newest one last
	newest   fence.Token
	rows     map[string]string
	writes   int

	accepted, refused, unmet int // unmet are Txns of whose own conditions one was not fulfilled
}

// claim installs the next token, of the same generation or a higher one.
func (m *guardModel) claim() {
	g := m.newest.Generation + generation.Generation(m.IntN(2))
	if m.register == nil {
		m.newest = claimBy(m.t, m.store, max(g, 1)).Token
	} else {
		m.raise(max(g, 1))
	}
	for range processes { // one that was refused sends nothing more
		m.holders = append(m.holders, m.kv(m.newest))
	}
	m.holders = m.holders[max(0, len(m.holders)-5*processes):]
}

// raise raises the register, which skips epochs, and tries to lower it.
func (m *guardModel) raise(g generation.Generation) {
	ctx := within(m.t, time.Minute)
	next := fence.Token{Generation: g, Epoch: m.newest.Epoch + 1 + epoch.Epoch(m.IntN(3))}
	require.NoError(m.t, m.register.Prove(ctx, next))
	require.NoError(m.t, m.register.Raise(ctx, next, holding("holder")))
	if !m.newest.IsZero() {
		refusedAs(m.t, m.register.Raise(ctx, m.newest, holding("old")), m.newest, next)
	}
	m.newest = next
}

// processes is how many write under each token.
const processes = 6

func (m *guardModel) step(ctx context.Context) {
	if m.IntN(20) == 0 {
		m.claim()
		return
	}
	kv := m.holders[len(m.holders)-1]
	if m.IntN(3) == 0 {
		kv = m.holders[m.IntN(len(m.holders))]
	}
	live := kv.Token() == m.newest
	before := kv.Refused()
	change, err := m.write(ctx, kv)
	switch {
	case before != nil:
		require.Equal(m.t, before, err)
		return
	case !live:
		m.refused++
		refusedAs(m.t, err, kv.Token(), m.newest)
		return
	}
	require.NoError(m.t, err)
	m.accepted++
	change()
}

// write does a random write, and returns what it changes in the model if it is
// accepted.
func (m *guardModel) write(ctx context.Context, kv *etcd.GuardedKV) (change func(), err error) {
	a, b := m.row(), m.row()
	m.writes++
	value := fmt.Sprint(kv.Token(), " ", m.writes)
	put, del := clientv3.OpPut(m.rowsKey(a), value), clientv3.OpDelete(m.rowsKey(b))
	both := func() { m.rows[a] = value; delete(m.rows, b) }
	if a == b {
		del, both = clientv3.OpGet(m.rowsKey(b)), func() { m.rows[a] = value }
	}
	switch m.IntN(6) {
	case 0:
		_, err = kv.Put(ctx, m.rowsKey(a), value)
		return func() { m.rows[a] = value }, err
	case 1:
		resp, err := kv.Delete(ctx, m.rowsKey(b), clientv3.WithPrevKV())
		if err == nil {
			require.Equal(m.t, m.rows[b] != "", resp.Deleted == 1)
		}
		return func() { delete(m.rows, b) }, err
	case 2:
		_, err = kv.Do(ctx, clientv3.OpDelete(m.rowsKey(a), clientv3.WithRange(m.rowsKey("e"))))
		return func() { maps.DeleteFunc(m.rows, func(row, _ string) bool { return a <= row && row < "e" }) }, err
	case 3:
		_, err = kv.Txn(ctx).Then(put, del).Commit()
		return both, err
	}
	return m.conditional(ctx, kv, []clientv3.Op{put, del}, both)
}

// conditional does a Txn whose condition is fulfilled or not, and whose Else reads
// or writes.
func (m *guardModel) conditional(ctx context.Context, kv *etcd.GuardedKV, ops []clientv3.Op, both func()) (func(), error) {
	c := m.row()
	cond := clientv3.Compare(clientv3.Value(m.rowsKey(c)), "=", m.rows[c])
	met := m.rows[c] != ""
	if m.IntN(3) == 0 {
		cond, met = clientv3.Compare(clientv3.Value(m.rowsKey(c)), "=", "never"), false
	}
	otherwise, elsePart := []clientv3.Op{clientv3.OpGet(m.rowsKey(c))}, func() {}
	if m.IntN(2) == 0 {
		value := fmt.Sprint(kv.Token(), " else ", m.writes)
		otherwise, elsePart = append(otherwise, clientv3.OpPut(m.rowsKey(c), value)), func() { m.rows[c] = value }
	}
	resp, err := kv.Txn(ctx).If(cond).Then(ops...).Else(otherwise...).Commit()
	if err != nil {
		return nil, err
	}
	require.Equal(m.t, met, resp.Succeeded)
	if met {
		require.Len(m.t, resp.Responses, len(ops))
		return both, nil
	}
	m.unmet++
	require.Len(m.t, resp.Responses, len(otherwise))
	require.Equal(m.t, m.rows[c], string(valueIn(resp)))
	return elsePart, nil
}

func valueIn(resp *clientv3.TxnResponse) []byte {
	for _, kv := range resp.Responses[0].GetResponseRange().GetKvs() {
		return kv.Value
	}
	return nil
}

func (m *guardModel) row() string { return []string{"a", "b", "c", "d", "e"}[m.IntN(5)] }

func (m *guardModel) rowsKey(row string) string { return m.guardedRows.rows + row }
