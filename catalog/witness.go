package catalog

import (
	"context"
	"fmt"
	"sync"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// A witness is a store with a memory: it compares every head that comes from
// the store with the highest token that came from it before. It is how this
// package holds a store, so that no head gets into the package without that
// comparison, the head under a claim included. Nor does a record of the log get in
// that does not follow the one before.
type witness struct {
	driver.Store

	mu   sync.Mutex
	seen driver.Head // with the highest token that the store has shown; of a record, revision and token alone
}

// Witnessed returns store with a memory: where a head that is read through it
// bears a lower token than something that was read through it before, the read
// fails with an error that wraps [ErrLostCommit]. The functions of this package
// do that for themselves, from their own beginning on. A process that calls
// several of them on one store gives them all the same one, so that none of them
// is shown less than another was. Find what else the store can do with
// [driver.As].
func Witnessed(store driver.Store) driver.Store { return witnessed(store) }

func witnessed(store driver.Store) *witness {
	if w, ok := store.(*witness); ok {
		return w
	}
	return &witness{Store: store}
}

// Unwrap returns the store without the memory, for [driver.As].
func (w *witness) Unwrap() driver.Store { return w.Store }

func (w *witness) highest() driver.Head {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

// saw remembers the token of what was in the store.
func (w *witness) saw(h driver.Head) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h.Claim.Token.Compare(w.seen.Claim.Token) > 0 {
		w.seen = h
	}
}

// sawToken remembers the token of a record.
func (w *witness) sawToken(t fence.Token, revision uint64) {
	w.saw(driver.Head{Revision: revision, Claim: driver.Claim{Token: t}})
}

// compare judges a token that was read after before had been seen: two reads
// may overtake each other on their way.
func (w *witness) compare(before, head driver.Head) error {
	if err := judgeSeen(before, head); err != nil {
		return err
	}
	w.saw(head)
	return nil
}

// Head implements [driver.Store].
func (w *witness) Head(ctx context.Context) (driver.Head, error) {
	before := w.highest()
	head, err := w.Store.Head(ctx)
	if err == nil {
		err = w.compare(before, head)
	}
	if err != nil {
		return driver.Head{}, err
	}
	return head, nil
}

// Log implements [driver.Store].
func (w *witness) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return w.Store.Log(ctx, after, w.records(after, fn))
}

// records remembers the tokens of what fn gets: a commit is made under a token
// that was installed. The revisions of a log follow one another: one that is left
// out, or comes twice, is corruption.
func (w *witness) records(after uint64, fn func(driver.Record) error) func(driver.Record) error {
	var last fence.Token
	return func(rec driver.Record) error {
		if rec.Revision != after+1 {
			return exitcodes.With(fmt.Errorf("%s: %w: the log has revision %d behind revision %d: stop every writer and compare with a backup",
				w.Store, driver.ErrCorrupt, rec.Revision, after), exitcodes.Panic)
		}
		after = rec.Revision
		if rec.Token != last {
			last = rec.Token
			w.sawToken(last, rec.Revision)
		}
		return fn(rec)
	}
}

// Claims implements [driver.Store]. A history that is read to its end must
// reach the highest token that was seen.
func (w *witness) Claims(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
	before := w.highest()
	var last driver.Head
	err := w.Store.Claims(ctx, after, func(c driver.Claim) error {
		last = c.Head()
		w.saw(last)
		return fn(c)
	})
	if err != nil || after > 0 && last.IsZero() {
		return err
	}
	return judgeSeen(before, last)
}

// Snapshot implements [driver.Store].
func (w *witness) Snapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	return w.Store.Snapshot(ctx, func(s driver.Snapshot, part []byte) error {
		w.sawToken(s.Token, s.Revision)
		return fn(s, part)
	})
}

// Claim implements [driver.Store].
func (w *witness) Claim(ctx context.Context) (driver.Claiming, error) {
	before := w.highest()
	claiming, err := w.Store.Claim(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.compare(before, claiming.Head()); err != nil {
		claiming.Abandon()
		return nil, err
	}
	return &witnessedClaiming{claiming, w}, nil
}

type witnessedClaiming struct {
	driver.Claiming
	of *witness
}

// Log implements [driver.Claiming].
func (c *witnessedClaiming) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return c.Claiming.Log(ctx, after, c.of.records(after, fn))
}

// Install implements [driver.Claiming].
func (c *witnessedClaiming) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	err := c.Claiming.Install(ctx, claim, rec, when...)
	if err == nil {
		c.of.saw(claim.Head())
	}
	return err
}
