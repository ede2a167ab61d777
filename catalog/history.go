package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
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
	w, cfg := witnessed(store), Config{}.withDefaults()
	budget := cfg.RetryBudget
	for pace := newPace(budget); ; {
		var failed error // fn's, or about what the log holds
		reading, alive, stop := whileItMoves(ctx, cfg.StoreTimeout)
		err := w.Log(reading, after, func(rec driver.Record) error {
			defer alive() // a slow fn costs a further call, and no commit comes twice
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
		err = stalled(w, cfg, reading, err)
		stop()
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
	return again(ctx, cfg.RetryBudget, func(ctx context.Context) error {
		reading, alive, stop := whileItMoves(ctx, cfg.StoreTimeout)
		defer stop()
		return stalled(w, cfg, reading, read(reading, w, alive))
	})
}

// again calls read, which writes nothing, until it succeeds or fails for good:
// with jitter while it fails in passing, until ctx ends or the budget is spent. If
// the end of ctx cut the last try short, the error is that of the try before,
// which says why.
func again(ctx context.Context, budget time.Duration, read func(context.Context) error) error {
	var before error
	for pace := newPace(budget); ; {
		err := read(ctx)
		if err == nil || exitcodes.Of(err) > exitcodes.Retry {
			return err // what the store says, however late
		}
		if ctx.Err() != nil && before != nil {
			return before
		}
		if !transient(err) || !pace.wait(ctx) {
			return err
		}
		before = err
	}
}

// ReadHead returns the newest head, or the zero Head if nobody ever claimed. It
// writes nothing and needs no token. A failure in passing is tried again within
// cfg.RetryBudget, each call within cfg.StoreTimeout.
func ReadHead(ctx context.Context, store driver.Store, cfg Config) (head driver.Head, err error) {
	cfg = cfg.withDefaults()
	w := witnessed(store)
	err = again(ctx, cfg.RetryBudget, func(ctx context.Context) (err error) {
		head, err = callStore(ctx, cfg.StoreTimeout, w.Head)
		return err
	})
	return head, err
}
