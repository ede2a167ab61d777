package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	inmemory "github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
)

// randomState returns a state of n entries, some of them larger than a part.
func randomState(random *rand.Rand, n int) *state {
	d := newState().draft()
	for range n {
		size := random.IntN(3000)
		if random.IntN(n) == 0 {
			size = random.IntN(3 * driver.MaxPart)
		}
		value := make([]byte, size)
		for i := range value {
			value[i] = byte(random.Uint32())
		}
		d.apply(Change{Collection: fmt.Sprint("c", random.IntN(3)), Key: fmt.Sprint(random.Uint64()), Value: value})
	}
	return d.state
}

func changesOf(t *testing.T, s *state) (all []Change) {
	require.NoError(t, s.ascendAll(func(c Change) error { all = append(all, c); return nil }))
	return all
}

func TestTheEntriesOfASnapshotAreThoseOfTheState(t *testing.T) {
	for seed := range uint64(20) {
		want := randomState(rand.New(rand.NewPCG(seed, seed)), int(seed*seed)*3)
		var dec decoder
		got := newState().draft()
		total, last := int64(0), 0
		require.NoError(t, want.parts(func(part []byte) error {
			require.True(t, total%driver.MaxPart == 0 && len(part) <= driver.MaxPart, "a part in the middle is not full")
			total, last = total+int64(len(part)), len(part)
			// Behind the part lies what is somebody else's.
			buffer := append(bytes.Clone(part), "not yours"...)
			require.NoError(t, dec.decode(buffer[:len(part)], got.apply))
			require.Equal(t, "not yours", string(buffer[len(part):]))
			return nil
		}))
		require.NoError(t, dec.end())
		require.Positive(t, last)
		require.Equal(t, changesOf(t, want), changesOf(t, got.state), "seed %d", seed)
		require.Equal(t, want.size, got.size)
		require.InDelta(t, want.size, total, float64(16+4*len(changesOf(t, want))), "the size of a state is that of its snapshot")
	}
}

func TestTheSizeOfAStateFollowsItsChanges(t *testing.T) {
	d := newState().draft()
	d.apply(Change{Collection: "c", Key: "k", Value: make([]byte, 100)})
	one := d.size
	require.Equal(t, entrySize("c", "k", make([]byte, 100)), one)
	d.apply(Change{Collection: "c", Key: "k", Value: make([]byte, 40)})
	require.Equal(t, one-60, d.size)
	next := d.state.draft()
	next.apply(Change{Collection: "c", Key: "k", Delete: true})
	next.apply(Change{Collection: "c", Key: "k", Delete: true})
	require.Zero(t, next.size)
	require.Equal(t, one-60, d.size, "a draft changed the state beneath it")
}

func TestACompactionIsDueWhenTheLogIsLargerThanTheEntriesAndThanCompactAfter(t *testing.T) {
	for _, row := range []struct {
		log, entries, after int64
		due                 bool
	}{
		{log: 99, entries: 10, after: 100},
		{log: 100, entries: 10, after: 100, due: true},
		{log: 100, entries: 101, after: 100},
		{log: 101, entries: 101, after: 100, due: true},
	} {
		c := &Catalog{cfg: Config{CompactAfter: row.after}}
		c.compacts.init(version{logSize: row.log - recordOverhead - 7})
		c.grown(7, moment{head: driver.Head{Revision: 9}, state: &state{size: row.entries}})
		require.Equal(t, row.due, len(c.compacts.due) == 1, "%+v", row)
		require.Equal(t, row.log, c.compacts.logSize.Load(), "%+v", row)
		require.EqualValues(t, 9, c.compacts.newest.Load().head.Revision)
	}
}

func TestALogThatIsFoundTooLargeIsCompactedWithoutACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := inmemory.New()
		c, err := Open(t.Context(), store, Config{Generation: 1})
		require.NoError(t, err)
		for range 100 {
			require.NoError(t, c.Update(t.Context(), func(tx *Tx) error { return Bytes("c").Set(tx, "k", make([]byte, 1000)) }))
		}
		require.NoError(t, c.Close())
		c, err = Open(t.Context(), store, Config{Generation: 1, CompactAfter: 10_000})
		require.NoError(t, err)
		elapse(t.Context(), settling)
		synctest.Wait()
		found, err := Compacted(t.Context(), store)
		require.NoError(t, err)
		require.Equal(t, c.Head().Revision, found.Revision)
		require.NoError(t, store.Log(t.Context(), 0, func(driver.Record) error { return nil }), "readers had no time to go on behind the snapshot")
		elapse(t.Context(), time.Minute)
		require.ErrorIs(t, store.Log(t.Context(), 0, func(driver.Record) error { return nil }), driver.ErrCompacted)
		require.NoError(t, c.Close())
	})
}

func TestASnapshotWithoutItsLastPartIsCorruptThoughNoEntryIsCut(t *testing.T) {
	store := inmemory.New()
	c, err := Open(t.Context(), store, Config{Generation: 1})
	require.NoError(t, err)
	head := c.Head()
	require.NoError(t, c.Close())
	s := driver.Snapshot{ID: driver.NewID(), Revision: head.Revision, Commit: head.Commit, Token: head.Claim.Token, Parts: 2}
	part := appendChanges(newPayload(), []Change{{Collection: "c", Key: "k"}})
	for n, part := range [][]byte{part, part[1:]} {
		require.NoError(t, store.Stage(t.Context(), head.Claim, s.ID, n, part))
	}
	require.NoError(t, store.Publish(t.Context(), head.Claim, s))
	_, err = newReplica(witnessed(lacking{store}), Config{}.withDefaults()).load(t.Context(), head)
	require.ErrorIs(t, err, driver.ErrCorrupt)
	v, err := newReplica(witnessed(store), Config{}.withDefaults()).load(t.Context(), head)
	require.NoError(t, err)
	require.Equal(t, head.Commit, v.head.Commit)
}

// lacking gives only the first part of a snapshot.
type lacking struct{ driver.Store }

func (l lacking) Snapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	n := 0
	return l.Store.Snapshot(ctx, func(s driver.Snapshot, part []byte) error {
		if n++; n > 1 {
			return nil
		}
		return fn(s, part)
	})
}

// failing fails every Stage, and counts them.
type failing struct {
	driver.Store
	stages int
}

func (f *failing) Stage(context.Context, driver.Claim, driver.ID, int, []byte) error {
	f.stages++
	return &driver.Error{Class: driver.Class{Disposition: exitcodes.Halt}, Store: "failing", Op: "stage", Err: errors.New("no")}
}

func TestACompactionThatFailsIsNotTriedAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &failing{Store: inmemory.New()}
		c, err := Open(t.Context(), store, Config{Generation: 1, CompactAfter: 1})
		require.NoError(t, err)
		for range 100 { // in no time: a bubble's clock stands still while anything runs
			require.NoError(t, c.Update(t.Context(), func(tx *Tx) error { return Bytes("c").Set(tx, "k", nil) }))
			synctest.Wait()
		}
		require.Equal(t, 1, store.stages)
		require.NoError(t, c.Close())
	})
}
