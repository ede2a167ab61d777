package catalog

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// A Rehearsal is a snapshot of a catalog with private writes on top. It runs
// the build's migrations for real, on the real data, and nothing of it is ever
// durable: it writes not one byte of database or log. It does not follow the
// holder's commits, but it ends as soon as it sees a higher generation. Its
// methods may be called concurrently.
type Rehearsal struct {
	f    *Follower
	base driver.Head

	mu      sync.Mutex // of Update
	running running
	state   atomic.Pointer[state]
	steps   []RehearsedMigration
}

// RehearsedMigration says what one migration would do.
type RehearsedMigration struct {
	Version uint64        `json:"version"`
	Name    string        `json:"name"`
	Took    time.Duration `json:"took_ns"`
	Sets    int           `json:"sets"`    // entries written
	Deletes int           `json:"deletes"` // entries removed
	Bytes   int           `json:"bytes"`   // of its changes in the log
}

// Rehearse reads the catalog and runs the migrations that cfg's build would run
// in its claim. An error of a migration is returned as the claim would return
// it; one whose changes don't fit into one commit of the store wraps
// driver.ErrTooLarge. The other errors are those of [Open].
func Rehearse(ctx context.Context, store driver.Store, cfg Config) (*Rehearsal, error) {
	if err := mayWrite(cfg); err != nil {
		return nil, err
	}
	f, err := Follow(ctx, store, cfg)
	if err != nil {
		return nil, err
	}
	dry, err := f.rehearse(ctx, f.r.dryRun)
	if err != nil {
		_ = f.Close() // the first error says more
		return nil, err
	}
	r := &Rehearsal{f: f, base: dry.on, running: newRunning(), steps: dry.steps}
	r.state.Store(dry.state)
	return r, nil
}

// Rehearsed says what the newest run of the migrations did.
type Rehearsed struct {
	Head       driver.Head // that they were run on
	Migrations []RehearsedMigration
	Took       time.Duration // all of them together
}

// Rehearse runs the migrations that a claim by this follower would run, on the
// entries that it has read. Nothing is written. If nothing has changed of what
// they read in their last run, it returns that one and runs nothing.
//
// A later [Follower.Open] installs their changes as they are, provided that no
// commit has changed by then what they read: nobody has to wait for them.
//
// Rehearse takes as long as they do; the end of ctx, or of the follower, ends
// it. An error of a migration is returned as the claim would return it; one
// whose changes don't fit into one commit of the store wraps
// driver.ErrTooLarge.
func (f *Follower) Rehearse(ctx context.Context) (Rehearsed, error) {
	dry, err := f.rehearse(ctx, f.r.dryRun)
	return dry.rehearsed(), err
}

// RehearsePaused does the same while the holder has stopped its work for the
// sake of this process. The run is bounded by Config.MigrationTimeout: when that
// is over, the error wraps [ErrMigrationTimeout].
func (f *Follower) RehearsePaused(ctx context.Context) (Rehearsed, error) {
	dry, err := f.rehearse(ctx, f.r.pausedRun)
	return dry.rehearsed(), err
}

// Rehearsed returns what the newest run did, and whether a claim could install
// its changes as they are, as far as this follower has read. Zero if there was
// none, and once [Follower.Open] claims.
func (f *Follower) Rehearsed() (last Rehearsed, current bool) {
	f.applying.Lock()
	defer f.applying.Unlock()
	head, _ := f.Head()
	dry := f.newest()
	return dry.rehearsed(), dry.fits(head.Claim)
}

// newest returns the newest dry run; nil if there is none, or if it is the
// claim's by now. The caller holds applying.
func (f *Follower) newest() *dryRun {
	if f.opened {
		return nil
	}
	return f.r.dry
}

// rehearsed says what d did. D may be nil.
func (d *dryRun) rehearsed() Rehearsed {
	if d == nil {
		return Rehearsed{}
	}
	return Rehearsed{Head: d.on, Migrations: slices.Clone(d.steps), Took: d.took}
}

// rehearse returns the newest dry run if it still fits, else one that it makes
// by run. One is made at a time.
func (f *Follower) rehearse(ctx context.Context, run runner) (*dryRun, error) {
	select {
	case f.rehearsing <- struct{}{}:
	case <-f.end.done:
		return nil, f.end.reason()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-f.rehearsing }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer f.end.before(cancel)()
	head, now, t := f.trace()
	if t == nil {
		return f.r.dry, nil
	}
	dry, err := run(ctx, head, now, t, nil)
	if err != nil {
		return nil, err
	}
	f.applying.Lock()
	defer f.applying.Unlock()
	f.r.dry = dry
	return dry, nil
}

// trace begins to trace the commits behind the entries that it returns; nil if
// the newest dry run fits these.
func (f *Follower) trace() (driver.Head, *state, *trace) {
	f.applying.Lock()
	defer f.applying.Unlock()
	head, now := f.snapshot()
	if f.r.dry.fits(head.Claim) {
		return head, now, nil
	}
	f.r.trace = newTrace()
	return head, now, f.r.trace
}

// prepare runs the migrations that a claim still needs, if that was not done.
func (f *Follower) prepare(ctx context.Context) error {
	if err := mayWrite(f.r.cfg); err != nil {
		return err
	}
	f.applying.Lock()
	head, _ := f.Head()
	done := f.newest().sameVersions(head.Claim)
	f.applying.Unlock()
	if done || !pending(head.Claim, f.r.cfg.Migrations) {
		return nil
	}
	_, err := f.rehearse(ctx, f.r.dryRun)
	if errors.Is(err, ErrIncompatible) {
		return nil // the claim says so, if the newest head does not say superseded
	}
	return err
}

// Migrations returns what each migration would do, in order; none where the
// data are at the build's version already.
func (r *Rehearsal) Migrations() []RehearsedMigration {
	return slices.Clone(r.steps)
}

// Head returns the head that was rehearsed on. A later one may hold what makes
// a migration fail.
func (r *Rehearsal) Head() driver.Head { return r.base }

// Update changes the private entries. Nothing is written to the store. Called by
// fn itself, it returns [ErrReentrant].
func (r *Rehearsal) Update(fn func(*Tx) error) error {
	if r.f.end.ended() {
		return r.f.end.reason()
	}
	if r.running.isCaller() {
		return ErrReentrant
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var next *state
	var err error
	r.running.call(func() { next, _, err = transact(r.state.Load(), fence.Token{}, fn) })
	if err != nil {
		return err
	}
	r.state.Store(next)
	return nil
}

// View calls fn with the private entries. Once the rehearsal has ended, View
// returns the reason and does not call fn.
func (r *Rehearsal) View(fn func(*Reader) error) error {
	if r.f.end.ended() {
		return r.f.end.reason()
	}
	return r.state.Load().view(fn)
}

// Done is closed when the rehearsal has ended. [Rehearsal.Err] says why.
func (r *Rehearsal) Done() <-chan struct{} { return r.f.Done() }

// Err returns nil until Done is closed, and then the reason.
func (r *Rehearsal) Err() error { return r.f.Err() }

// Close ends the rehearsal and throws its writes away. It returns the reason
// why it had ended before, if it had.
func (r *Rehearsal) Close() error { return r.f.Close() }
