package catalog

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// A dryRun is one run of the migrations that a claim still needs, on the entries
// of one head: what they changed, and what they read. As long as nothing that
// they read has changed, a claim may install the changes as they are.
type dryRun struct {
	on      driver.Head // that it was made on
	state   *state      // what the changes lead to on that head
	changes []Change
	payload []byte // the changes, as the log keeps them
	trace   *trace
	steps   []RehearsedMigration
	took    time.Duration
}

// pending reports whether data that c describes need a migration of ms.
func pending(c driver.Claim, ms []Migration) bool { return dataVersion(ms) > c.DataVersion }

// sameVersions reports whether d ran on data of the same versions as c's. D may
// be nil.
func (d *dryRun) sameVersions(c driver.Claim) bool {
	return d != nil && d.on.Claim.DataVersion == c.DataVersion && d.on.Claim.ReadableBy == c.ReadableBy
}

// fits reports whether d's changes may be installed over c. D may be nil.
func (d *dryRun) fits(c driver.Claim) bool { return d.sameVersions(c) && d.trace.holds() }

// onto returns what d's changes lead to on the entries of now, as of head.
func (d *dryRun) onto(head driver.Head, now *state) *state {
	if head.Commit == d.on.Commit {
		return d.state
	}
	draft := now.draft()
	for _, c := range d.changes {
		draft.apply(c)
	}
	return draft.state
}

// A runner makes a dry run: dryRun or pausedRun.
type runner func(ctx context.Context, head driver.Head, now *state, t *trace, alive func(context.Context) error) (*dryRun, error)

// dryRun runs the migrations that data of head.Claim still need, on now. From
// before that on, t is told of the commits behind head. Alive, unless nil, is
// called every alivePoll meanwhile. DryRun returns when ctx ends, with its cause,
// and when alive fails; a migration that does not return by then is left behind,
// and its Tx refuses everything.
func (r *replica) dryRun(ctx context.Context, head driver.Head, now *state, t *trace, alive func(context.Context) error) (*dryRun, error) {
	if err := checkVersion(head.Claim, r.cfg.Migrations); err != nil {
		return nil, err
	}
	d := &dryRun{on: head, state: now, payload: newPayload(), trace: t}
	reads, begun := make(readSet), time.Now()
	for _, m := range r.cfg.Migrations {
		if m.Version <= head.Claim.DataVersion {
			continue
		}
		if err := d.step(ctx, m, reads, alive); err != nil {
			return nil, err
		}
	}
	d.took = time.Since(begun)
	t.finish(reads)
	if limit := r.store.Limits().Payload; len(d.payload) > limit {
		return nil, exitcodes.WithCode(fmt.Errorf("catalog: %w: %d bytes of migrations in one claim, %s takes %d: release them in smaller steps",
			driver.ErrTooLarge, len(d.payload), r.store, limit), exitcodes.Config)
	}
	return d, nil
}

// step runs one migration on what those before it have led to.
func (d *dryRun) step(ctx context.Context, m Migration, reads readSet, alive func(context.Context) error) error {
	begun := time.Now()
	next, changes, err := m.run(ctx, d.state, reads, alive)
	if err != nil {
		return fmt.Errorf("catalog: migration %d (%q): %w", m.Version, m.Name, err)
	}
	step := RehearsedMigration{Version: m.Version, Name: m.Name, Took: time.Since(begun)}
	for _, c := range changes {
		if c.Delete {
			step.Deletes++
		} else {
			step.Sets++
		}
	}
	before := len(d.payload)
	d.payload = appendChanges(d.payload, changes)
	step.Bytes = len(d.payload) - before
	d.changes, d.state, d.steps = append(d.changes, changes...), next, append(d.steps, step)
	return nil
}

// errMigrationGoexit means that a migration ended its goroutine.
var errMigrationGoexit = errors.New("its function called runtime.Goexit, as t.FailNow does")

// alivePoll is how often a run asks whether it may go on.
const alivePoll = 50 * time.Millisecond

// run calls the migration's function on a goroutine of its own, and returns
// when it does, when ctx ends or when alive fails. A panic is passed on to the
// caller. Nothing is shared with a function that is left behind.
func (m Migration) run(ctx context.Context, now *state, reads readSet, alive func(context.Context) error) (*state, []Change, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tx := &Tx{draft: now.draft(), ctx: ctx, reads: reads}
	done := make(chan *panicked, 1)
	result := errMigrationGoexit
	go func() {
		var p *panicked
		defer func() {
			if v := recover(); v != nil {
				p = &panicked{value: v, stack: debug.Stack()}
			}
			done <- p
		}()
		result = m.Up(tx)
	}()
	// A store that knew when ctx ends could answer alive a moment before that, and
	// its error would hide the cause.
	timeless, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	poll := time.NewTicker(alivePoll)
	defer poll.Stop()
	for {
		select {
		case p := <-done:
			if p != nil {
				panic(fmt.Sprintf("%v\n\nin migration %d (%q):\n%s", p.value, m.Version, m.Name, p.stack))
			}
			if result != nil && ctx.Err() != nil {
				result = context.Cause(ctx) // the function may have said less
			}
			return tx.result(result)
		case <-ctx.Done():
			tx.finish()
			select { // a function that looks at its context returns now
			case <-done:
			case <-time.After(alivePoll):
			}
			return nil, nil, context.Cause(ctx)
		case <-poll.C:
		}
		if alive == nil {
			continue
		}
		if err := alive(timeless); err != nil {
			cancel(err)
		}
	}
}
