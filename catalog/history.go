package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// A Commit is one entry of the log, decoded.
type Commit struct {
	Revision uint64
	ID       driver.ID
	Token    fence.Token // under which it was made
	Changes  []Change
}

// ReadLog calls fn with every commit whose revision is above after, in order,
// for tools that check or export a catalog. It writes nothing and needs no
// token. It ends with fn's first error. A failure in passing is tried again, from
// the last commit on, for as long as a Config's default RetryBudget without a
// further commit. An error that wraps [driver.ErrCompacted] means that the log no
// longer has those: [Compacted] says up to where.
func ReadLog(ctx context.Context, store driver.Store, after uint64, fn func(Commit) error) error {
	w, budget := witnessed(store), Config{}.withDefaults().RetryBudget
	for pace := newPace(budget); ; {
		var failed error // fn's, or about what the log holds
		err := w.Log(ctx, after, func(rec driver.Record) error {
			c := Commit{Revision: rec.Revision, ID: rec.ID, Token: rec.Token}
			err := decodePayload(rec.Payload, func(ch Change) { c.Changes = append(c.Changes, ch) })
			if err != nil {
				failed = fmt.Errorf("%s: revision %d: %w", store, rec.Revision, err)
			} else {
				failed = fn(c)
			}
			after, pace = rec.Revision, newPace(budget)
			return failed
		})
		if failed != nil || err == nil || !transient(err) || !pace.wait(ctx) {
			return err
		}
	}
}

// Compacted returns the snapshot that stands for the beginning of the log: its
// own revision is the first that the log surely has. It is zero where the log is
// whole. It writes nothing and needs no token. A failure in passing is tried
// again within a Config's default RetryBudget.
func Compacted(ctx context.Context, store driver.Store) (found driver.Snapshot, err error) {
	err = readAgain(ctx, store, func(ctx context.Context, w *witness, alive func()) error {
		err := w.Snapshot(ctx, func(s driver.Snapshot, _ []byte) error {
			alive()
			found = s
			return errEnough
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		return err
	})
	return found, err
}

// History returns every claim that was ever made, oldest first: claims are never
// compacted. It writes nothing and needs no token. A failure in passing is tried
// again within a Config's default RetryBudget.
func History(ctx context.Context, store driver.Store) (claims []driver.Claim, err error) {
	err = readAgain(ctx, store, func(ctx context.Context, w *witness, alive func()) error {
		claims = nil
		return w.Claims(ctx, 0, func(c driver.Claim) error {
			alive()
			claims = append(claims, c)
			return nil
		})
	})
	return claims, err
}

// readAgain calls read until it succeeds or fails for good. It calls alive
// whenever it comes to something.
func readAgain(ctx context.Context, store driver.Store, read func(ctx context.Context, w *witness, alive func()) error) error {
	w, cfg := witnessed(store), Config{}.withDefaults()
	once := func() error {
		reading, alive, stop := whileItMoves(ctx, cfg.StoreTimeout)
		defer stop()
		return stalled(w, cfg, reading, read(reading, w, alive))
	}
	for pace := newPace(cfg.RetryBudget); ; {
		err := once()
		if err == nil || !transient(err) || !pace.wait(ctx) {
			return err
		}
	}
}
