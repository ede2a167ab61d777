package work

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
)

// ErrNotMine means that a run does not have its job any more: the job was
// completed, abandoned or claimed anew. Nothing was written.
var ErrNotMine = errors.New("work: the job is not this run's any more")

// ErrAbandoned is the cause with which a run's context ends if its job was
// abandoned meanwhile.
var ErrAbandoned = errors.New("work: the job was abandoned")

// ErrTimeout is the cause with which a run's context ends once Kind.Timeout is
// over.
var ErrTimeout = errors.New("work: the run took longer than its Timeout")

// Permanent marks err so that the job goes to the dead list at once, without
// another attempt. It returns nil if err is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

type permanent struct{ error }

func (p *permanent) Unwrap() error { return p.error }

// Later returns an error with which a run says that its job is not done yet, and is to
// run again behind wait. It is neither a failure nor an attempt. It is for a job that
// waits for something outside, such as a job of another queue.
func Later(wait time.Duration) error { return &later{max(wait, 0)} }

type later struct{ wait time.Duration }

func (l *later) Error() string { return fmt.Sprintf("work: not done yet, again in %v", l.wait) }

// A Job is one run of a job.
type Job struct {
	ID      ID
	Kind    string
	Key     string
	Payload []byte
	// Merged is how many older jobs of the key this run does too (of [Latest]).
	Merged int

	// Progress is what an earlier run left by SetProgress; nil if none did.
	Progress []byte

	Attempt     int         // runs that count against MaxAttempts, this one included
	Interrupted int         // runs that a deploy or a stop ended before
	Crashed     int         // runs whose process died before
	Made        fence.Token // under which it was enqueued; zero if its maker held none
	MadeAt      time.Time
	Due         time.Time // when it was first due

	// Token is the token of this run, for guards: whatever the run does outside of
	// the catalog is to be refused if a newer token has been seen there.
	Token fence.Token
	// From is the token whose run this one takes over; zero if there was none.
	From fence.Token

	serial    int
	covers    []ID
	completed atomic.Bool // Complete was called
}

// Complete completes the job in tx: the run's effects on the catalog and the
// completion are one commit, so these effects happen exactly once. The run returns
// nil afterwards. An error that wraps [ErrNotMine] means that the job is not this
// run's any more; the caller then returns it from tx. The older jobs that a run of
// [Latest] does too are removed in the same commit, at some 40 bytes each: Update
// returns driver.ErrTooLarge above what the store takes, which is 64 MiB on SQLite,
// PostgreSQL and etcd. A run that returns nil without Complete has no such limit.
func (j *Job) Complete(tx *catalog.Tx) error {
	if _, err := j.mine(tx); err != nil {
		return err
	}
	j.completed.Store(true)
	sums := tally{}
	if err := complete(tx, sums.of(j.Kind), j.ID, j.covers); err != nil {
		return err
	}
	return sums.write(tx)
}

// Completed reports whether Complete was called, whatever became of that commit.
func (j *Job) Completed() bool { return j.completed.Load() }

// SetProgress stores what the next run of the job goes on from, of at most
// [MaxProgress] bytes; nil removes it. Its errors wrap [ErrNotMine] or
// [ErrTooLarge].
func (j *Job) SetProgress(tx *catalog.Tx, data []byte) error {
	if len(data) > MaxProgress {
		return fmt.Errorf("%w: progress of %d bytes of job %d, want at most %d", ErrTooLarge, len(data), j.ID, MaxProgress)
	}
	if _, err := j.mine(tx); err != nil {
		return err
	}
	if data == nil {
		_, err := progress.Delete(tx, j.ID.entry())
		return err
	}
	return progress.Set(tx, j.ID.entry(), data)
}

// mine returns the job's run if it is still this one.
func (j *Job) mine(tx *catalog.Tx) (runRecord, error) {
	run, found, err := runs.Get(tx, j.ID.entry())
	switch {
	case err != nil && found:
		return run, fmt.Errorf("%w: what became of job %d of kind %s can't be read: %w", ErrNotMine, j.ID, j.Kind, err)
	case err != nil:
		return run, err
	case !found:
		return run, fmt.Errorf("%w: job %d of kind %s is completed or was abandoned", ErrNotMine, j.ID, j.Kind)
	case run.Claim != j.Token || run.Serial != j.serial || tx.Token() != j.Token:
		return run, fmt.Errorf("%w: run %d of job %d under %v, and the catalog, whose token is %v, has run %d under %v", ErrNotMine, j.serial, j.ID, j.Token, tx.Token(), run.Serial, run.Claim)
	}
	return run, nil
}

// complete removes a job that is done, and those that its run has done too.
func complete(tx *catalog.Tx, t *Totals, id ID, covers []ID) error {
	if err := merge(tx, t, covers); err != nil {
		return err
	}
	t.Completed++
	_, err := removeJob(tx, id)
	return err
}

// merge removes jobs that a run of a newer one has done too.
func merge(tx *catalog.Tx, t *Totals, covers []ID) error {
	for _, id := range covers {
		run, found, err := runs.Get(tx, id.entry())
		if err != nil && found {
			continue // the job stays, and is shown
		}
		if err != nil {
			return err
		}
		found, err = removeJob(tx, id)
		if err != nil {
			return err
		}
		if found {
			t.Merged++
		}
		if found && !run.Claim.IsZero() {
			t.Joined++
		}
	}
	return nil
}

// removeJob removes the entries of a live job, the job before what became of it.
func removeJob(tx *catalog.Tx, id ID) (found bool, err error) {
	if found, err = jobs.Delete(tx, id.entry()); err != nil {
		return found, err
	}
	if _, err = runs.Delete(tx, id.entry()); err != nil {
		return found, err
	}
	_, err = progress.Delete(tx, id.entry())
	return found, err
}

// read reads what a run needs of a claimed job.
func read(s catalog.Source, it *item) (*Job, error) {
	rec, found, spoilt, err := readJob(s, it.id.entry())
	if err := errors.Join(err, spoilt); err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("%w: %d", ErrNotFound, it.id)
	}
	left, _, err := progress.Get(s, it.id.entry())
	if err != nil {
		return nil, err
	}
	return &Job{ID: it.id, Kind: rec.Kind, Key: rec.Key, Payload: rec.Payload, Progress: left, Made: rec.Made, MadeAt: rec.MadeAt, Due: rec.since()}, nil
}

// claimed fills in the run.
func (j *Job) claimed(run runRecord, covers []*item) {
	j.Attempt, j.Interrupted, j.Crashed = run.Attempt, run.Interrupted, run.Crashed
	j.Token, j.From, j.serial, j.Merged = run.Claim, run.From, run.Serial, len(covers)
	j.covers = ids(covers)
}

func ids(items []*item) []ID {
	all := make([]ID, len(items))
	for i, it := range items {
		all[i] = it.id
	}
	return all
}

// errExited is the failure of a run that ended its goroutine.
var errExited = errors.New("work: the run ended its goroutine (runtime.Goexit)")

// call calls a kind's Run, and returns a panic as an error: also one of the error that
// Run returned, such as a nil pointer's, which nobody else could contain.
func call(ctx context.Context, k Kind, j *Job) (err error) {
	defer contain(&err)
	if err = k.Run(ctx, j); err != nil {
		_, _ = err.Error(), errors.As(err, new(*permanent))
	}
	return err
}

// contain turns a panic into an error. It is deferred.
func contain(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
	}
}
