package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/work"
)

// An Index is what syncs change: a *gitindex.Checkout.
type Index interface {
	Sync(ctx context.Context, token fence.Token, name string, content []byte) (commit string, err error)
}

// Limits of the syncs.
const (
	syncTimeout = time.Minute
	firstRetry  = 200 * time.Millisecond
	lastRetry   = 5 * time.Second
	syncStale   = 15 * time.Second // older ones raise an alarm
)

// Kinds returns the kinds of jobs of a registry whose catalog is c. There is one sync
// at a time, since they share a checkout; other jobs run meanwhile. A sync is tried
// until it succeeds.
func Kinds(c *catalog.Catalog, index Index) []work.Kind {
	return []work.Kind{
		{
			Name: SyncKind, Order: work.Latest, Concurrency: 1, MaxAttempts: -1, Retry: retry, Timeout: syncTimeout, Stale: syncStale,
			Run: func(ctx context.Context, j *work.Job) error { return syncPackage(ctx, c, index, j) },
		},
		{Name: AnnounceKind, Run: func(ctx context.Context, j *work.Job) error { return announce(ctx, c, j) }},
	}
}

// retry waits twice as long behind each failure.
func retry(attempts int) time.Duration {
	return min(lastRetry, firstRetry<<min(attempts-1, 10))
}

// syncPackage makes the index equal to what the package is now. It may do so again,
// beside a stopped process that does the same, and behind one whose run was not
// completed: the index refuses older tokens.
func syncPackage(ctx context.Context, c *catalog.Catalog, index Index, j *work.Job) error {
	var content []byte
	var number uint64
	err := c.View(func(r *catalog.Reader) (err error) {
		content, number, err = Wanted(r, j.Key)
		return err
	})
	if err != nil {
		return err
	}
	commit, err := index.Sync(ctx, j.Token, j.Key, content)
	if err != nil {
		return err
	}
	return c.Update(ctx, func(tx *catalog.Tx) error {
		if err := indexed.Set(tx, j.Key, indexedRecord{Number: number, Commit: commit, Token: j.Token}); err != nil {
			return err
		}
		return j.Complete(tx)
	})
}

// announce puts a change into the feed, once: the entry and the completion are one
// commit.
func announce(ctx context.Context, c *catalog.Catalog, j *work.Job) error {
	return c.Update(ctx, func(tx *catalog.Tx) error {
		rec, found, err := changes.Get(tx, string(j.Payload))
		if err != nil {
			return err
		}
		if !found {
			return work.Permanent(fmt.Errorf("change %.64q: %w", j.Payload, ErrNotFound))
		}
		a := Announced{Op: rec.Op, Name: rec.Name, Version: rec.Version, Change: rec.ID}
		if err := feed.Set(tx, fmt.Sprintf("%016d", j.ID), a); err != nil {
			return err
		}
		return j.Complete(tx)
	})
}

// Resync enqueues a sync of every package, for an index that was restored from a
// backup, and returns how many these are. Until they have run, nothing counts as being
// in the index.
func Resync(tx *catalog.Tx) (int, error) {
	var all []work.Request
	err := packages.Scan(tx, "", func(name string, _ packageRecord) bool {
		all = append(all, work.Request{Kind: SyncKind, Key: name})
		return true
	})
	if err != nil || len(all) == 0 {
		return 0, err
	}
	if _, err := work.EnqueueAll(tx, all...); err != nil {
		return 0, err
	}
	for _, r := range all {
		if _, err := indexed.Delete(tx, r.Key); err != nil {
			return 0, err
		}
	}
	return len(all), nil
}
