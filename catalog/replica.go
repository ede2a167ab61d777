package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// replica is a copy of the entries, as of one head. A follower and a holder
// have one each; it is used by one goroutine.
type replica struct {
	store *witness
	cfg   Config
	memory
	version

	dry   *dryRun // the newest; nil before the first
	trace *trace  // of the newest dry run, or of the one under way; nil before the first
}

// A version is the entries as of one head.
type version struct {
	head    driver.Head // up to which the log was applied
	state   *state
	logSize int64 // of the records applied since the snapshot, in bytes
	shown
}

// shown is what a log has shown of what was acknowledged. A holder makes a commit
// with changes only once all before it were: what lies behind the last such commit
// may have been read before anybody was told of it, and may go again.
type shown struct {
	token fence.Token // of the record that was read last
	acked Position    // the newest that surely was acknowledged; zero before the first
}

// read notes a record, behind the one at last.
func (s *shown) read(rec driver.Record, last driver.Head) {
	if rec.Token == s.token && len(rec.Payload) > len(newPayload()) {
		s.acked = Position{last.Revision, last.Commit}
	}
	s.token = rec.Token
}

// head is the newest head that surely was acknowledged.
func (s *shown) head(claim driver.Claim) driver.Head {
	return driver.Head{Revision: s.acked.Revision, Commit: s.acked.Commit, Claim: claim}
}

func newReplica(store *witness, cfg Config) *replica {
	return &replica{store: store, cfg: cfg, version: version{state: newState()}}
}

// logReader is where records come from: a store, or a claim under way.
type logReader interface {
	Log(ctx context.Context, after uint64, fn func(driver.Record) error) error
}

// errEnough ends the reading of a log early.
var errEnough = errors.New("enough")

// advance applies the records up to head. It begins with the record that it
// applied last, so that a store whose past has changed is found out. Where that
// was compacted, it begins anew with the snapshot.
func (r *replica) advance(ctx context.Context, from logReader, head driver.Head) error {
	if head.Commit == r.head.Commit {
		r.head = head
		return nil
	}
	if head.Revision <= r.head.Revision {
		return r.gone(ctx, from, head)
	}
	next := r.version
	err := r.replay(ctx, from, &next, head)
	if errors.Is(err, driver.ErrCompacted) {
		if next, err = r.load(ctx, head); err == nil {
			err = r.replay(ctx, from, &next, head)
		}
	}
	if errors.Is(err, driver.ErrCompacted) {
		return exitcodes.With(fmt.Errorf("%s: while it was read: %w", r.store, err), exitcodes.Retry)
	}
	if err != nil {
		return r.classify(err)
	}
	if next.head.Revision != head.Revision || next.head.Commit != head.Commit {
		return r.classify(fmt.Errorf("%w: the log ends with %v at revision %d, and the head says %v at %d",
			driver.ErrCorrupt, next.head.Commit, next.head.Revision, head.Commit, head.Revision))
	}
	r.version, r.head = next, head
	return nil
}

// replay applies the records behind v up to head. V is left as it is where that
// fails before the first of them.
func (r *replica) replay(ctx context.Context, from logReader, v *version, head driver.Head) error {
	draft, last := v.state.draft(), v.head
	apply := draft.apply
	if last.Revision > 0 { // else few of the log's bytes will soon be garbage
		apply = func(c Change) {
			c.Value = bytes.Clone(c.Value) // so that one entry doesn't keep its whole commit in memory
			draft.apply(c)
		}
	}
	if t := r.trace; t != nil {
		untraced := apply
		apply = func(c Change) { t.apply(c); untraced(c) }
	}
	reading, alive, stop := whileItMoves(ctx, r.cfg.StoreTimeout)
	defer stop()
	err := from.Log(reading, max(last.Revision, 1)-1, func(rec driver.Record) error {
		alive()
		if rec.Revision == last.Revision && rec.ID != last.Commit {
			return errOtherPast
		}
		if rec.Revision == last.Revision {
			return nil
		}
		if rec.Revision > head.Revision {
			return errEnough
		}
		if err := notAbove(rec.Token, rec.Revision, head); err != nil {
			return err
		}
		v.read(rec, v.head)
		v.head, v.logSize = v.head.After(rec), v.logSize+recordOverhead+int64(len(rec.Payload))
		return decodePayload(rec.Payload, apply)
	})
	if errors.Is(err, errOtherPast) {
		return r.gone(ctx, from, head)
	}
	if err != nil && !errors.Is(err, errEnough) {
		return r.stalled(reading, err)
	}
	v.state = draft.state
	return nil
}

// load reads the snapshot that stands for the beginning of the log up to head.
func (r *replica) load(ctx context.Context, head driver.Head) (version, error) {
	var (
		found driver.Snapshot
		parts int
		dec   decoder
		draft = newState().draft()
	)
	reading, alive, stop := whileItMoves(ctx, r.cfg.StoreTimeout)
	defer stop()
	err := r.store.Snapshot(reading, func(s driver.Snapshot, part []byte) error {
		alive()
		found, parts = s, parts+1
		return dec.decode(part, draft.apply)
	})
	switch {
	case err != nil:
		return version{}, r.stalled(reading, err)
	case found.Revision > head.Revision:
		return version{}, fmt.Errorf("%w: up to revision %d, while %d was the newest", driver.ErrCompacted, found.Revision, head.Revision)
	case found.IsZero():
		return version{}, fmt.Errorf("%w: the beginning of the log is gone, and there is no snapshot", driver.ErrCorrupt)
	case parts != found.Parts:
		return version{}, fmt.Errorf("%w: %d of the %d parts of snapshot %v", driver.ErrCorrupt, parts, found.Parts, found.ID)
	case notAbove(found.Token, found.Revision, head) != nil:
		return version{}, notAbove(found.Token, found.Revision, head)
	case found.Revision <= r.head.Revision || found.Token.Compare(r.head.Claim.Token) < 0:
		return version{}, lostCommit(r.head, head, "its log was compacted up to revision %d of %v, and %d of %v was read before",
			found.Revision, found.Token, r.head.Revision, r.head.Claim.Token)
	}
	if err := dec.end(); err != nil {
		return version{}, fmt.Errorf("snapshot %v: %w", found.ID, err)
	}
	if r.trace != nil {
		r.trace.spoil()
	}
	if r.head.Revision > 0 {
		r.cfg.Logger.InfoContext(ctx, "too far behind the log: a snapshot was read",
			"store", r.store.String(), "revision", r.head.Revision, "snapshot", found.Revision)
	}
	at := Position{found.Revision, found.Commit} // a snapshot is made of what was acknowledged
	return version{head: driver.Head{Revision: at.Revision, Commit: at.Commit}, state: draft.state, shown: shown{token: found.Token, acked: at}}, nil
}

// stalled says so where a reading failed since it came to no further record.
func (r *replica) stalled(reading context.Context, err error) error {
	return stalled(r.store, r.cfg, reading, err)
}

func stalled(store driver.Store, cfg Config, reading context.Context, err error) error {
	if err == nil || !errors.Is(context.Cause(reading), errStalled) {
		return err
	}
	return exitcodes.With(fmt.Errorf("%s: %w for %v: %w", store, errStalled, cfg.StoreTimeout, err), exitcodes.Retry)
}

// errStalled means that the reading of a log came to no further record.
var errStalled = errors.New("the log gave no further record")

// whileItMoves returns a context that ends once alive was not called for a
// timeout: a log has no length that could bound its reading.
func whileItMoves(ctx context.Context, timeout time.Duration) (_ context.Context, alive, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(timeout, func() { cancel(errStalled) })
	return ctx, func() { timer.Reset(timeout) }, func() {
		timer.Stop()
		cancel(nil)
	}
}

// errOtherPast means that the log has another record at a revision that was read before.
var errOtherPast = errors.New("the log has another past")

// gone says what it means that the commit which was read last is not in the log up
// to head: a loss, if it or one before it was acknowledged.
func (r *replica) gone(ctx context.Context, from logReader, head driver.Head) error {
	had := r.shown.head(r.head.Claim)
	kept, err := r.has(ctx, from, r.shown.acked, head)
	switch {
	case err != nil:
		return err
	case kept:
		return vanished(r.head, head)
	}
	return lostCommit(had, head, "its log ends with %v at revision %d, and %v at %d was read and acknowledged before",
		head.Commit, head.Revision, had.Commit, had.Revision)
}

// has reports whether a commit is in the log up to head. The zero Position is in
// every log.
func (r *replica) has(ctx context.Context, from logReader, at Position, head driver.Head) (found bool, err error) {
	if at.Revision == 0 {
		return true, nil
	}
	if head.Revision < at.Revision {
		return false, nil
	}
	reading, alive, stop := whileItMoves(ctx, r.cfg.StoreTimeout)
	defer stop()
	err = from.Log(reading, at.Revision-1, func(rec driver.Record) error {
		alive()
		found = rec.ID == at.Commit
		return errEnough
	})
	switch {
	case err == nil, errors.Is(err, errEnough):
		return found, nil
	case errors.Is(err, driver.ErrCompacted):
		return true, nil // it is beneath a snapshot
	}
	return false, r.stalled(reading, err)
}

// classify gives an error about what the store holds a disposition, where it
// has none: only panic is left.
func (r *replica) classify(err error) error {
	if errors.Is(err, driver.ErrCorrupt) && exitcodes.Of(err) == exitcodes.None {
		return exitcodes.With(fmt.Errorf("%s: %w: stop every writer and compare with a backup", r.store, err), exitcodes.Panic)
	}
	return err
}

// readHead reads the newest head once.
func (r *replica) readHead(ctx context.Context) (driver.Head, error) {
	return callStore(ctx, r.cfg.StoreTimeout, r.store.Head)
}

// callStore makes one call of the store under a deadline of its own.
func callStore[T any](ctx context.Context, timeout time.Duration, call func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return call(ctx)
}

// writeStore makes one write under a deadline of its own. The context's values
// go along; its end does not cut the write short, because a write may carry the
// work of many callers, and one that was cut has an unknown outcome.
func writeStore(ctx context.Context, timeout time.Duration, write func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	return write(ctx)
}

// pace spaces the tries of one operation: with jitter, doubling, up to a
// second.
type pace struct {
	next  *backoff.ExponentialBackOff
	until time.Time
}

func newPace(budget time.Duration) *pace {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.Multiplier, b.MaxInterval = 2*time.Millisecond, 2, time.Second
	b.Reset()
	return &pace{next: b, until: time.Now().Add(budget)}
}

// wait waits until the next try is due. It returns false where the budget is
// spent or ctx has ended.
func (p *pace) wait(ctx context.Context) bool {
	d := p.next.NextBackOff()
	if time.Now().Add(d).After(p.until) {
		return false
	}
	elapse(ctx, d)
	return ctx.Err() == nil
}

// extend gives d more time.
func (p *pace) extend(d time.Duration) { p.until = p.until.Add(d) }

// remaining is how long ctx has until its deadline.
func remaining(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline()
	return time.Until(deadline)
}

// elapse waits for d, or until ctx ends.
func elapse(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// transient reports whether the same call may go through later.
func transient(err error) bool { return exitcodes.Of(err) == exitcodes.Retry }
