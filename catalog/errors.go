package catalog

import (
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

var (
	// ErrClosed means that the handle was closed. Nothing was written.
	ErrClosed = errors.New("catalog: closed")

	// ErrReentrant means that a function given to Update called what would wait
	// for that very function: Update or Close of the same handle. Nothing was
	// done.
	ErrReentrant = errors.New("catalog: called by a function given to Update, for whose end it would wait: do it before or after Update")

	// ErrClaimWaits means that a claim waits for the store: another session, such as
	// another claim, keeps it from beginning.
	ErrClaimWaits = errors.New("catalog: the claim waits: another session may hold what it needs")

	// ErrStillRunning means that a function given to Update had not returned
	// when Close did. Nothing of it will be written.
	ErrStillRunning = errors.New("catalog: closed, but a function given to Update has not returned")

	// ErrUnknownOutcome means that a write, a claim included, may have landed,
	// or may land later: the caller's context ended first, or the handle did.
	// The next claim, or the handle's own next commit, settles it. To find out,
	// read what was written from a handle opened afterwards; of a claim, the
	// history.
	ErrUnknownOutcome = errors.New("the outcome of the write is unknown")

	// ErrLostCommit means that the store has lost a commit that it had
	// acknowledged, as after the promotion of an asynchronous replica or a
	// restore. It asks for panic: a human must look.
	ErrLostCommit = errors.New("the store has lost an acknowledged commit")

	// ErrLossStands means that the store was found to have lost acknowledged
	// commits, and that nobody has dealt with that yet: see [Loss]. No claim was
	// made. Its exit code is 78.
	ErrLossStands = errors.New("catalog: acknowledged commits were lost")

	// ErrIncompatible means that this build can't read the data, or must not
	// change it. Nothing was written. It asks for halt with code 78.
	ErrIncompatible = errors.New("catalog: incompatible")

	// ErrRefused means that a claim's own condition did not hold, and never will
	// again: the newest claim is not the one that it named, or a note has
	// changed. Nothing was written. It asks for halt: the same call would be
	// refused again, so that the process must look and judge anew, as one that
	// was fenced by epoch. Of [Raise] it means that the holder which was to be
	// fenced is fenced already, by another claim.
	ErrRefused = errors.New("catalog: the claim's condition does not hold")

	// ErrNeverClaimed means that there is no token to raise: nobody has ever
	// claimed the catalog. Nothing was written.
	ErrNeverClaimed = errors.New("catalog: nobody has ever claimed this catalog")

	// ErrNotBelow means that the catalog bears a token that is not below
	// [RaiseOptions.Above]: it is not the backup that it was taken for, or that
	// was not the highest token. Nothing was written. Its exit code is 78.
	ErrNotBelow = errors.New("catalog: the token of the catalog is not below the one that was named")
)

var errGoexit = errors.New("catalog: a function given to Update, of this caller or of one that shared its commit, called runtime.Goexit (as t.FailNow does): nothing was written")

// outcomeError is a failed write that may have landed.
type outcomeError struct{ err error }

func (e *outcomeError) Error() string {
	return fmt.Sprintf("catalog: %v: %v", ErrUnknownOutcome, e.err)
}
func (e *outcomeError) Unwrap() error        { return e.err }
func (e *outcomeError) Is(target error) bool { return target == ErrUnknownOutcome }

// OutcomeOf says whether the Update, Open or Raise that returned err may have
// landed.
func OutcomeOf(err error) driver.Outcome {
	if errors.Is(err, ErrUnknownOutcome) {
		return driver.Unknown
	}
	return driver.NotApplied
}

// conditionFailed returns an error that wraps ErrRefused.
func conditionFailed(format string, args ...any) error {
	return exitcodes.With(fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...)), exitcodes.Halt)
}

// vanished is a commit that has gone, and of which nobody is known to have been
// told that it had landed: the wait for a synchronous standby was cut, say.
func vanished(gone, head driver.Head) error {
	return exitcodes.With(fmt.Errorf("catalog: the commit %v at revision %d has gone, and nobody is known to have been told that it had landed: the store is at revision %d, commit %v: start the process anew, which reads what is there",
		gone.Commit, gone.Revision, head.Revision, head.Commit), exitcodes.Halt)
}

// landedLate is a commit of mine that landed though the store had refused it
// for good: something between this process and the store sent it twice.
func landedLate(head driver.Head) error {
	return exitcodes.With(fmt.Errorf("catalog: the commit %v at revision %d has landed although the store had refused it: something between this process and the store sends writes twice: start the process anew, which reads what is there",
		head.Commit, head.Revision), exitcodes.Halt)
}

// alarmed is a fence that also brought to light that commits were lost. The
// fence decides what the process does; both are listed.
type alarmed struct{ fence, lost error }

func (a *alarmed) Error() string   { return a.fence.Error() + "; also " + a.lost.Error() }
func (a *alarmed) Unwrap() []error { return []error{a.fence, a.lost} }

func (a *alarmed) Disposition() exitcodes.Disposition { return exitcodes.Of(a.fence) }
