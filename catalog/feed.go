package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// A Position is a place in a log: a revision, and which commit is there. The
// zero Position is before the first commit.
type Position struct {
	Revision uint64    `json:"revision"`
	Commit   driver.ID `json:"commit"`
}

// An Event is one step of a feed: a commit, or everything at once.
type Event struct {
	Position
	Token   fence.Token // of the newest commit in it
	Changes []Change    // the values are shared and must not be changed
	// Snapshot says that Changes are all entries as of Revision. They take the
	// place of whatever the reader had.
	Snapshot bool
}

// Feed calls fn with what changes in a catalog, commit by commit and in order,
// until ctx ends, fn fails, or a higher generation than cfg's is seen; it
// returns the reason. A commit without changes is no event.
//
// Where after is zero, the first event is a snapshot, or the first commit of a
// catalog that nobody has claimed yet. Otherwise the feed goes on behind the
// position after, which a reader keeps from the last event that it has dealt
// with: an event may so come twice, after a crash of the reader, and none is
// left out. A reader that is so far behind that the log was compacted meanwhile
// gets a snapshot again, in the middle of the feed too; so does one whose
// position the log no longer has, since the catalog was restored from a backup.
//
// A feed reads only as fast as fn returns, and keeps no more than 4 MiB of
// commits and one commit in memory, besides the entries while it makes a
// snapshot. It ends too where the store fails for longer than cfg.RetryBudget, or
// has lost a commit that was handed out. It writes nothing but the record of such a
// loss.
func Feed(ctx context.Context, store driver.Store, cfg Config, after Position, fn func(Event) error) error {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return err
	}
	f := &feed{replica: newReplica(witnessed(store), cfg), fn: fn}
	if err := f.begin(ctx, after); err != nil {
		return err
	}
	moved := make(chan struct{}, 1)
	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		watch(watching, cfg, writesOf(f.store), make(chan struct{}, 1), func(context.Context) error {
			nudge(moved)
			return nil
		})
	}()
	defer func() { stop(); <-done }()
	for {
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := f.forward(ctx); err != nil {
			return err
		}
	}
}

// feed is one reader. Its replica holds no entries once the snapshot is made:
// only how far it has come.
type feed struct {
	*replica
	fn func(Event) error
}

// errBehind means that a reader asks for what was never written.
var errBehind = errors.New("catalog: the feed's revision is above the newest one")

// begin makes the snapshot, or finds the place where the reader was.
func (f *feed) begin(ctx context.Context, after Position) error {
	return f.retry(ctx, func(ctx context.Context) error {
		head, err := f.admitted(ctx)
		if err != nil {
			return err
		}
		if after.Revision > head.Revision {
			return fmt.Errorf("%w: %d, and that is %d: it was read from another catalog, or the store has lost commits", errBehind, after.Revision, head.Revision)
		}
		if head.IsZero() {
			return nil
		}
		if after.Revision > 0 {
			return f.resume(ctx, after)
		}
		if err := f.advance(ctx, f.store, head); err != nil {
			return err
		}
		return f.snapshot()
	})
}

// resume takes the place behind the record at a position.
func (f *feed) resume(ctx context.Context, after Position) error {
	reading, alive, stop := whileItMoves(ctx, f.cfg.StoreTimeout)
	defer stop()
	err := f.store.Log(reading, after.Revision-1, func(rec driver.Record) error {
		alive()
		f.head = driver.Head{Revision: rec.Revision, Commit: rec.ID}
		return errEnough
	})
	if err == nil || f.head.Revision != after.Revision && errors.Is(err, errEnough) {
		err = fmt.Errorf("%w: the log has nothing at revision %d", driver.ErrCorrupt, after.Revision)
	}
	if errors.Is(err, errEnough) {
		if f.head.Commit != after.Commit {
			return f.jump(ctx, "has read another past than the log has now")
		}
		return nil
	}
	if errors.Is(err, driver.ErrCompacted) {
		return f.jump(ctx, "is too far behind the log")
	}
	return f.classify(f.stalled(reading, err))
}

// jump takes a reader to the newest revision, by a snapshot.
func (f *feed) jump(ctx context.Context, why string) error {
	head, err := f.admitted(ctx)
	if err != nil {
		return err
	}
	f.cfg.Logger.InfoContext(ctx, "a feed "+why+": it begins again with a snapshot",
		"store", f.store.String(), "revision", f.head.Revision, "newest", head.Revision)
	fresh := newReplica(f.store, f.cfg)
	if err := fresh.advance(ctx, f.store, head); err != nil {
		return err
	}
	f.replica = fresh
	return f.snapshot()
}

// snapshot hands out every entry, and forgets them.
func (f *feed) snapshot() error {
	e := Event{Position: Position{f.head.Revision, f.head.Commit}, Token: f.head.Claim.Token, Snapshot: true}
	_ = f.state.ascendAll(func(c Change) error { e.Changes = append(e.Changes, c); return nil })
	f.state = newState()
	return f.hand(e)
}

// A page bounds what is read ahead of the reader. The store is not kept waiting
// for it: an open read holds up compaction and checkpoints.
const (
	pageRecords = 256
	pageBytes   = 4 << 20
)

// forward hands out the commits since the last look.
func (f *feed) forward(ctx context.Context) error {
	for {
		var page []driver.Record
		err := f.retry(ctx, func(ctx context.Context) (err error) {
			if page, err = f.page(ctx); errors.Is(err, driver.ErrCompacted) {
				page, err = nil, f.jump(ctx, "is too far behind the log")
			}
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, rec := range page {
			if err := f.commit(rec); err != nil {
				return f.reason(ctx, err)
			}
		}
	}
}

// page reads the next records, none where there are none.
func (f *feed) page(ctx context.Context) (page []driver.Record, err error) {
	head, err := f.admitted(ctx)
	if err != nil || head.Commit == f.head.Commit {
		return nil, err
	}
	if head.Revision <= f.head.Revision {
		return nil, f.gone(ctx, f.store, head)
	}
	reading, alive, stop := whileItMoves(ctx, f.cfg.StoreTimeout)
	defer stop()
	size := 0
	err = f.store.Log(reading, max(f.head.Revision, 1)-1, func(rec driver.Record) error {
		alive()
		if rec.Revision == f.head.Revision && rec.ID != f.head.Commit {
			return errOtherPast
		}
		if rec.Revision == f.head.Revision {
			return nil
		}
		if err := notAbove(rec.Token, rec.Revision, head); err != nil {
			return err
		}
		page, size = append(page, rec), size+len(rec.Payload)
		if rec.Revision >= head.Revision || len(page) >= pageRecords || size >= pageBytes {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errOtherPast) {
		return nil, f.gone(ctx, f.store, head)
	}
	if err != nil && !errors.Is(err, errEnough) {
		return nil, f.classify(f.stalled(reading, err))
	}
	f.head.Claim = head.Claim
	return page, nil
}

// commit hands out one commit.
func (f *feed) commit(rec driver.Record) error {
	e := Event{Position: Position{rec.Revision, rec.ID}, Token: rec.Token}
	if err := decodePayload(rec.Payload, func(c Change) { e.Changes = append(e.Changes, c) }); err != nil {
		return err
	}
	if len(e.Changes) > 0 {
		if err := f.hand(e); err != nil {
			return err
		}
	}
	f.read(rec, f.head)
	f.head = f.head.After(rec)
	return nil
}

// readersError is an error of the reader's function, which no further try
// mends.
type readersError struct{ err error }

func (e *readersError) Error() string { return e.err.Error() }

func (f *feed) hand(e Event) error {
	if err := f.fn(e); err != nil {
		return &readersError{err}
	}
	return nil
}

// admitted reads the newest head, unless a higher generation leads.
func (f *feed) admitted(ctx context.Context) (driver.Head, error) {
	head, err := f.readHead(ctx)
	if err != nil {
		return head, err
	}
	if mine := f.cfg.Generation; mine != generation.None && head.Claim.Token.Generation > mine {
		return head, fence.Check(fence.Token{Generation: mine}, head.Claim.Token, head.Claim.Holder)
	}
	return head, nil
}

// retry calls fn while the store fails in passing, within RetryBudget.
func (f *feed) retry(ctx context.Context, fn func(context.Context) error) error {
	pace := newPace(f.cfg.RetryBudget)
	for {
		err := fn(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !transient(err) || !pace.wait(ctx):
			return f.reason(ctx, err)
		}
	}
}

// reason gives a reader its own error back as it is, and records a loss that the
// feed has found.
func (f *feed) reason(ctx context.Context, err error) error {
	var readers *readersError
	if errors.As(err, &readers) {
		return readers.err
	}
	return f.store.reportLoss(ctx, f.cfg, err)
}
