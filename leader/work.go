package leader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/closing"
)

// Work is what a service does while it leads. Its context ends, with the reason
// as its cause, when the token is lost or must not be trusted, or when the
// process is to stop; Work then returns soon. The context's Deadline says by when,
// once it has ended, and stays so: if the token is lost only after that, as
// [catalog.Catalog.Done] says, Work has DrainTimeout from the loss. An error that Work
// returns before ends the process.
//
// If the cause is [ErrHandingOver] or [ErrUnconfirmed], the token is not lost yet.
// Work is called again, with the same catalog, if this process keeps the lead, so it
// may hold requests back until then. It is never called twice at a time.
//
// Work says by [Term.Serving] that it answers requests. Until then the process leads,
// and is not ready.
type Work func(ctx context.Context, t *Term) error

var (
	// ErrHandingOver is the cause of the end of a Work's context if another
	// process is about to take over. The deadline is HandoverTimeout later.
	ErrHandingOver = errors.New("leader: another process is about to take over")

	// ErrUnconfirmed is the cause of the end of a Work's context if the
	// store could not be asked, for a whole Lease, whether the token is still
	// held. There is no time left: another process may claim.
	ErrUnconfirmed = errors.New("leader: the token could not be confirmed for a whole lease")
)

// A Term is what one call of a [Work] is given: the catalog, and the words by which
// the work says how it stands. They may be called concurrently, and have no effect once
// the call has returned or was asked to end.
type Term struct {
	*catalog.Catalog
	l   *Leader
	run *run
}

// A workState is what the work has said of itself.
type workState struct {
	run     *run      // of the call that speaks; nil: no work runs
	missing string    // why it does not serve; empty: it does
	busy    []*string // what is under way, oldest first
}

// notYet is what a work lacks that has said nothing.
const notYet = "the work has not said yet that it serves"

// Serving says that the work answers requests. Status, the readiness of the admin API,
// the heartbeat and fencepost promote go by it.
func (t *Term) Serving() { t.say(func(s *workState) { s.missing = "" }) }

// NotServing says that it does not, and why, until Serving is called.
func (t *Term) NotServing(why string) {
	if why = cut(exitcodes.OneLine(why), maxLacks); why == "" {
		why = "the work does not say why"
	}
	t.say(func(s *workState) { s.missing = why })
}

// Busy says that something is under way that a deploy had better not interrupt, until
// idle is called: fencepost promote --when-idle waits for a moment in which nothing is.
// It keeps nobody from taking over. The text is for people.
func (t *Term) Busy(what string) (idle func()) {
	if what = cut(exitcodes.OneLine(what), maxBusy); what == "" {
		what = "something that the work does not name"
	}
	mine := &what
	t.say(func(s *workState) { s.busy = append(s.busy, mine) })
	return func() {
		t.say(func(s *workState) {
			s.busy = slices.DeleteFunc(s.busy, func(b *string) bool { return b == mine })
		})
	}
}

// The bounds of what the work says, in bytes.
const (
	maxLacks = 1024
	maxBusy  = 128
)

// say changes what the work has said, if its call still runs.
func (t *Term) say(change func(*workState)) {
	t.l.mu.Lock()
	speaks := t.l.state.run == t.run && t.run.ctx.Err() == nil
	if speaks {
		change(&t.l.state)
	}
	t.l.mu.Unlock()
	if speaks {
		t.l.tell()
	}
}

// lacks says why the work does not serve; empty: it does.
func (s workState) lacks() string {
	switch {
	case s.run == nil:
		return "the work has returned"
	case s.run.ctx.Err() != nil:
		return "the work was asked to end: " + exitcodes.OneLine(s.run.cause().Error())
	default:
		return s.missing
	}
}

// busyWith says what is under way; empty: nothing.
func (s workState) busyWith() string {
	switch n := len(s.busy); n {
	case 0:
		return ""
	case 1:
		return *s.busy[0]
	default:
		return fmt.Sprintf("%s, and %d more", *s.busy[0], n-1)
	}
}

// A run is one call of the work.
type run struct {
	ctx    context.Context // of the call
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error // once done is closed
}

var errWorkEnded = errors.New("leader: the work has ended")

// start calls the work.
func (t *leadership) start(ctx context.Context, why string) {
	r := &run{done: make(chan struct{})}
	working, cancel := context.WithCancelCause(ctx)
	r.ctx = closing.New(working, func() time.Time { return t.returnBy(ctx, context.Cause(working)) })
	t.run, r.cancel = r, cancel
	t.stands(nil, workState{run: r, missing: notYet})
	t.move(Leading, why)
	go func() {
		defer close(r.done)
		defer t.stands(r, workState{})
		defer cancel(errWorkEnded)
		r.err = errors.New("leader: the work ended its goroutine, as runtime.Goexit does")
		r.err = t.work(r.ctx, &Term{Catalog: t.c, l: t.Leader, run: r})
	}()
}

// stands notes how the work stands before its first word, and behind its last; of the
// call that is meant, and of no later one.
func (t *leadership) stands(of *run, s workState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state.run == of {
		t.state = s
	}
}

// returnBy is by when a work must have returned whose context ended because of cause,
// in the term of ctx. Zero: nobody says.
func (t *leadership) returnBy(ctx context.Context, cause error) (by time.Time) {
	switch {
	case t.c.Err() != nil:
		return time.Now().Add(t.cfg.DrainTimeout)
	case errors.Is(cause, ErrHandingOver):
		return time.Now().Add(t.cfg.HandoverTimeout)
	case errors.Is(cause, ErrUnconfirmed):
		return time.Now()
	default:
		by, _ = ctx.Deadline()
		return by
	}
}

// end asks the work to end. The first cause stays.
func (r *run) end(cause error) {
	if r != nil {
		r.cancel(cause)
		_, _ = r.ctx.Deadline() // the time counts from now
	}
}

// cause is why the work was asked to end, or was not.
func (r *run) cause() error { return context.Cause(r.ctx) }

// A StuckError says that a Work has not returned within DrainTimeout of the loss of the
// token. Its goroutine is left behind, so that the process has to end. It matches what
// Why does.
type StuckError struct {
	After  time.Duration // DrainTimeout
	Why    error         // the token was lost
	stacks []byte
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("leader: the work has not returned %v after the token was lost: %v", e.After, e.Why)
}

// Unwrap returns why the token was lost, which decides the exit status.
func (e *StuckError) Unwrap() error { return e.Why }

// Stacks returns the stacks of all goroutines as they were then. Package exitcodes
// prints them, and puts into the ending record as much as it has room for.
func (e *StuckError) Stacks() []byte { return e.stacks }
