package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// A compactor keeps the log from growing for ever. Once the log is larger than
// what it comes to, a snapshot of that takes the place of its beginning. That
// happens beside the commits, on a state that they no longer touch.
//
// Each of its writes is conditional on the claim, so that a fenced holder
// changes nothing; and until the last of them, which only deletes, whoever reads
// finds the log as it was. The history of claims is not the log's, and stays.
type compactor struct {
	newest  atomic.Pointer[moment] // after the last commit
	logSize atomic.Int64           // of the records since the newest moment that was compacted
	due     chan struct{}          // holds one where a compaction is due
	writing sync.Mutex             // the store takes one of these writes at a time
}

// A moment is a catalog as of one commit.
type moment struct {
	head  driver.Head
	state *state
}

func (c *compactor) init(v version) {
	c.newest.Store(&moment{head: v.head, state: v.state})
	c.logSize.Store(v.logSize)
	c.due = make(chan struct{}, 1)
}

// grown counts a commit, and asks for a compaction where one is due. It waits
// for nothing.
func (c *Catalog) grown(payload int64, now moment) {
	c.compacts.newest.Store(&now)
	c.compacts.logSize.Add(recordOverhead + payload)
	c.askForCompaction(now.state)
}

func (c *Catalog) askForCompaction(now *state) {
	if c.compacts.logSize.Load() < max(c.cfg.CompactAfter, now.size) {
		return
	}
	nudge(c.compacts.due)
}

// longestPause is how long a compaction that failed waits at most until the
// next one.
const longestPause = time.Minute

// grace is how long records that a snapshot stands for are kept: readers look
// every PollInterval, and one that has just read the snapshot goes on in the log
// behind it. There is no further compaction meanwhile.
func (c *Catalog) grace() time.Duration { return min(4*c.cfg.PollInterval, c.cfg.StoreTimeout) }

// compactLoop compacts when that is due, until the handle ends. First it deletes
// what an earlier holder had no time to.
func (c *Catalog) compactLoop() {
	ctx, stop := context.WithCancel(c.base)
	defer stop()
	c.wg.Go(func() {
		defer stop()
		select {
		case <-c.end.done:
		case <-ctx.Done():
		}
	})
	select {
	case <-time.After(settling):
	case <-c.compacts.due: // and is asked for again below
	case <-ctx.Done():
		return
	}
	c.report(ctx, c.trim(ctx))
	c.askForCompaction(c.state.Load())
	pause := backoff.NewExponentialBackOff()
	pause.MaxInterval = longestPause
	for {
		select {
		case <-c.compacts.due:
			size := c.compacts.logSize.Swap(0)
			err := c.compact(ctx, *c.compacts.newest.Load())
			if err == nil {
				pause.Reset()
				continue
			}
			c.compacts.logSize.Add(size)
			c.report(ctx, err)
			elapse(ctx, pause.NextBackOff())
		case <-ctx.Done():
			return
		}
	}
}

// report tells of a compaction that failed. That is nobody's error: the log is
// whole, and only larger than it need be.
func (c *Catalog) report(ctx context.Context, err error) {
	switch {
	case err == nil, c.end.ended():
	case errors.Is(err, driver.ErrConflict):
		c.cfg.Logger.InfoContext(ctx, "no compaction: the claim is no longer the newest", "store", c.store.String(), "err", err)
	case exitcodes.Of(err) == exitcodes.Panic:
		c.cfg.Logger.ErrorContext(ctx, "the log was not compacted: what the store holds is not what this holder wrote", "store", c.store.String(), "err", err)
	default:
		c.cfg.Logger.WarnContext(ctx, "the log was not compacted, and grows until it is", "store", c.store.String(), "err", err)
	}
}

// compact puts a snapshot of now in the place of the log before it.
func (c *Catalog) compact(ctx context.Context, now moment) error {
	s := driver.Snapshot{ID: driver.NewID(), Revision: now.head.Revision, Commit: now.head.Commit, Token: now.head.Claim.Token}
	err := now.state.parts(func(part []byte) error {
		n := s.Parts
		s.Parts++
		return c.write(ctx, func(ctx context.Context) error { return c.store.Stage(ctx, c.claim, s.ID, n, part) })
	})
	if err != nil {
		return fmt.Errorf("part %d of a snapshot: %w", s.Parts-1, err)
	}
	if err := c.write(ctx, func(ctx context.Context) error { return c.store.Publish(ctx, c.claim, s) }); err != nil {
		return err
	}
	c.cfg.Logger.DebugContext(ctx, "the log was compacted", "store", c.store.String(), "revision", s.Revision, "parts", s.Parts)
	elapse(ctx, c.grace())
	return c.trim(ctx)
}

// trim deletes what the published snapshot stands for.
func (c *Catalog) trim(ctx context.Context) error {
	for more := true; more; {
		err := c.write(ctx, func(ctx context.Context) (err error) {
			more, err = c.store.Trim(ctx, c.claim)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// write makes one write of a compaction, again while the store fails in passing.
func (c *Catalog) write(ctx context.Context, write func(context.Context) error) error {
	pace := newPace(c.cfg.RetryBudget)
	for {
		if c.end.ended() {
			return c.end.reason()
		}
		err := c.writeOnce(ctx, write)
		if err == nil || !transient(err) || !pace.wait(ctx) {
			return err
		}
	}
}

func (c *Catalog) writeOnce(ctx context.Context, write func(context.Context) error) error {
	c.compacts.writing.Lock()
	defer c.compacts.writing.Unlock()
	return writeStore(ctx, c.cfg.StoreTimeout, write)
}

// parts calls fn with one payload of all entries, cut into parts. The part is
// valid until fn returns.
func (s *state) parts(fn func(part []byte) error) error {
	b := append(make([]byte, 0, 2*driver.MaxPart), newPayload()...)
	err := s.ascendAll(func(c Change) error {
		b = appendChanges(b, []Change{c})
		rest := b
		for len(rest) >= driver.MaxPart {
			if err := fn(rest[:driver.MaxPart]); err != nil {
				return err
			}
			rest = rest[driver.MaxPart:]
		}
		if len(rest) < len(b) {
			b = append(b[:0], rest...)
		}
		return nil
	})
	if err != nil || len(b) == 0 {
		return err
	}
	return fn(b)
}
