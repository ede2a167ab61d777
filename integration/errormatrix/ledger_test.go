package errormatrix

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
)

// A fate is what became of a commit, as far as its sender was told.
type fate struct {
	rec driver.Record
	err error
}

// A ledger keeps what was sent to one catalog and what was answered.
type ledger struct {
	sent []fate
}

// claim installs the catalog's first claim.
func (l *ledger) claim(t *testing.T, s driver.Store) {
	t.Helper()
	head := drivertest.Install(t, s, 1)
	l.sent = append(l.sent, fate{rec: driver.Record{Revision: head.Revision, ID: head.Commit, Token: head.Claim.Token}})
}

// note keeps the fate of a record, and returns the error.
func (l *ledger) note(rec driver.Record, err error) error {
	l.sent = append(l.sent, fate{rec, err})
	return err
}

// check requires, by a store that is well again, that every acknowledged commit
// is there once as it was sent, that none is which was not applied, that one
// with unknown outcome is there once or not at all, and that nothing else is.
func (l *ledger) check(t *testing.T, s driver.Store) {
	t.Helper()
	found := map[driver.ID]int{}
	byID := map[driver.ID]driver.Record{}
	for _, rec := range drivertest.ReadLog(t, s, 0) {
		found[rec.ID]++
		byID[rec.ID] = rec
	}
	for _, f := range l.sent {
		n := found[f.rec.ID]
		delete(found, f.rec.ID)
		switch {
		case f.err == nil:
			require.Equal(t, 1, n, "the acknowledged commit of revision %d", f.rec.Revision)
			drivertest.SameLog(t, []driver.Record{f.rec}, []driver.Record{byID[f.rec.ID]})
		case driver.OutcomeOf(f.err) == driver.NotApplied:
			require.Zero(t, n, "the commit of revision %d is there, and was not to be: %v", f.rec.Revision, f.err)
		default:
			require.LessOrEqual(t, n, 1, "the commit of revision %d: %v", f.rec.Revision, f.err)
		}
	}
	require.Empty(t, found, "commits that nobody sent")
}

// random returns bytes that nothing can compress.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
