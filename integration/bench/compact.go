package main

import (
	"context"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
)

// The goal of compaction: what is stored after many commits on a thousand keys,
// as a multiple of the live bytes.
const (
	compactedKeys = 1000
	compactGoal   = 10
)

// compacts overwrites a thousand entries many times, by all workers at once, and
// counts what the store then keeps of it: snapshot and log.
func compacts(b *bench) error {
	h, err := b.hold(fresh("compacted"))
	if err != nil {
		return err
	}
	defer h.close()
	t, err := load(b.ctx, workers, b.overwrites/workers, func(ctx context.Context, worker int) error {
		n := b.serials.Add(1)
		return h.Update(ctx, func(tx *catalog.Tx) error {
			return entries.Set(tx, key(int(n%compactedKeys)), value(1<<40+n))
		})
	})
	if err != nil {
		return err
	}
	commits := h.Head().Revision
	stored, err := b.settled(h.store)
	if err != nil {
		return err
	}
	live := float64(compactedKeys * (keySize + valueSize))
	b.report(figure{
		Name: fmt.Sprintf("stored after %d updates of %d entries", b.overwrites, compactedKeys),
		P50:  t.p50, P99: t.p99, Ops: t.ops, Ratio: stored / live,
		Note: fmt.Sprintf("%.2f MB for %.2f MB, of %d commits", stored/1e6, live/1e6, commits),
	}.atMost(stored/live, compactGoal, "x live bytes"))
	return nil
}

// settled returns the bytes of snapshot and log once the compaction after the
// last commit is over, or after a while.
func (b *bench) settled(store driver.Store) (float64, error) {
	for end := time.Now().Add(30 * time.Second); ; {
		stored, err := b.stored(store)
		if err != nil || stored <= compactGoal*compactedKeys*(keySize+valueSize) || time.Now().After(end) {
			return stored, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// stored returns the bytes of snapshot and log.
func (b *bench) stored(store driver.Store) (float64, error) {
	total := 0
	snapshot, err := catalog.Compacted(b.ctx, store)
	if err == nil {
		err = store.Snapshot(b.ctx, func(_ driver.Snapshot, part []byte) error { total += len(part); return nil })
	}
	if err == nil {
		err = store.Log(b.ctx, max(snapshot.Revision, 1)-1, func(rec driver.Record) error { total += len(rec.Payload); return nil })
	}
	return float64(total), err
}
