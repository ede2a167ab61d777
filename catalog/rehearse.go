package catalog

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// A Rehearsal is a snapshot of a catalog with private writes on top. It runs
// the build's migrations for real, on the real data, and nothing of it is ever
// durable: it writes not one byte of database or log. It does not follow the
// holder's commits, but it ends as soon as it sees a higher generation. Its
// methods may be called concurrently.
type Rehearsal struct {
	f    *Follower
	base driver.Head

	mu    sync.Mutex
	state *state
	steps []RehearsedMigration
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
	r := &Rehearsal{f: f}
	if err := r.migrate(store, cfg); err != nil {
		_ = f.Close() // the first error says more
		return nil, err
	}
	return r, nil
}

// migrate runs the migrations on a snapshot of what was read.
func (r *Rehearsal) migrate(store driver.Store, cfg Config) (err error) {
	var now *state
	r.base, now = r.f.snapshot()
	r.state, r.steps, err = rehearse(store, cfg, r.base.Claim, now)
	return err
}

// rehearse runs the migrations that data of claim still need on now, and
// returns what they lead to.
func rehearse(store driver.Store, cfg Config, claim driver.Claim, now *state) (*state, []RehearsedMigration, error) {
	if err := checkVersion(claim, cfg.Migrations); err != nil {
		return nil, nil, err
	}
	var steps []RehearsedMigration
	payload := newPayload()
	for _, m := range cfg.Migrations {
		if m.Version <= claim.DataVersion {
			continue
		}
		begun := time.Now()
		next, changes, err := migrate(now, claim, []Migration{m})
		if err != nil {
			return nil, nil, err
		}
		step := RehearsedMigration{Version: m.Version, Name: m.Name, Took: time.Since(begun)}
		for _, c := range changes {
			if c.Delete {
				step.Deletes++
			} else {
				step.Sets++
			}
		}
		before := len(payload)
		payload = appendChanges(payload, changes)
		step.Bytes = len(payload) - before
		now, steps = next, append(steps, step)
	}
	if limit := store.Limits().Payload; len(payload) > limit {
		return nil, nil, exitcodes.WithCode(fmt.Errorf("catalog: %w: %d bytes of migrations in one claim, %s takes %d: release them in smaller steps",
			driver.ErrTooLarge, len(payload), store, limit), exitcodes.Config)
	}
	return now, steps, nil
}

// Rehearse runs the migrations that a claim by this follower would run, on the
// entries that it has read, and throws the result away. It returns what each of
// them did and the head that they were run on. Nothing is written. Its errors
// are those that the function [Rehearse] says of migrations.
func (f *Follower) Rehearse() ([]RehearsedMigration, driver.Head, error) {
	head, now := f.snapshot()
	_, steps, err := rehearse(f.r.store, f.r.cfg, head.Claim, now)
	return steps, head, err
}

// Migrations returns what each migration would do, in order; none where the
// data are at the build's version already.
func (r *Rehearsal) Migrations() []RehearsedMigration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]RehearsedMigration(nil), r.steps...)
}

// Head returns the head that was rehearsed on. A later one may hold what makes
// a migration fail.
func (r *Rehearsal) Head() driver.Head { return r.base }

// Update changes the private entries. Nothing is written to the store.
func (r *Rehearsal) Update(fn func(*Tx) error) error {
	if r.f.end.ended() {
		return r.f.end.reason()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	next, _, err := transact(r.state, fn)
	if err != nil {
		return err
	}
	r.state = next
	return nil
}

// View calls fn with the private entries. Once the rehearsal has ended, View
// returns the reason and does not call fn.
func (r *Rehearsal) View(fn func(*Reader) error) error {
	if r.f.end.ended() {
		return r.f.end.reason()
	}
	r.mu.Lock()
	s := r.state
	r.mu.Unlock()
	return s.view(fn)
}

// Done is closed when the rehearsal has ended. [Rehearsal.Err] says why.
func (r *Rehearsal) Done() <-chan struct{} { return r.f.Done() }

// Err returns nil until Done is closed, and then the reason.
func (r *Rehearsal) Err() error { return r.f.Err() }

// Close ends the rehearsal and throws its writes away. It returns the reason
// why it had ended before, if it had.
func (r *Rehearsal) Close() error { return r.f.Close() }
