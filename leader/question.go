package leader

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/fencepost/fencepost/leader/internal/election"
)

// A question is asked by calling a function of the application. A call may take longer
// than a look can wait. Then a later look takes its answer, and until that comes the
// previous answer is used, for a heartbeat at most. Calls never overlap, not even those of
// two campaigns.
type question struct {
	*Leader
	name   string // of the function
	call   *call  // under way; nil: there is none
	before *call  // the newest that was answered; nil: none was
}

// A call is one call of the function.
type call struct {
	about any // what was asked about: an answer is no answer about anything else
	began time.Time
	reply chan outcome
	err   error // once it was answered
}

// An outcome is what a call has come to.
type outcome struct {
	err   error
	panic any // what the function panicked with; nil: it did not
}

// patience is for how long a look waits. While a basic one does, nobody looks at the
// board: it waits only for a call that it has begun.
func (q *question) patience(level election.Level) time.Duration {
	switch {
	case level == election.Basic && q.call != nil:
		return 0
	case level == election.Basic:
		return q.cfg.Poll
	case level == election.Fresh:
		return q.cfg.heartbeat()
	default:
		return q.cfg.HandoverTimeout / 2 // the holder waits
	}
}

// ask returns what fn says about something, and whether that is the newest word: if not,
// a call is under way. Ctx is of the look. Asking is of the call, which may outlast it.
// A fresh or final look takes no answer of a call that had begun before.
func (q *question) ask(ctx, asking context.Context, level election.Level, about any, fn func(context.Context) error) (newest bool, err error) {
	limit := time.NewTimer(q.patience(level))
	defer limit.Stop()
	for late := q.call != nil && (level > election.Basic || q.call.about != about); ; late = false {
		if q.call == nil {
			q.call = q.begin(asking, about, fn)
		}
		select { // an answer that is there is taken, also without patience
		case a := <-q.call.reply:
			q.answered(a)
		default:
			select {
			case a := <-q.call.reply:
				q.answered(a)
			case <-limit.C:
				return false, q.unanswered(level, about)
			case <-ctx.Done():
				return false, context.Cause(ctx)
			}
		}
		if !late {
			return true, q.before.err
		}
	}
}

// answered takes the answer of the call under way.
func (q *question) answered(a outcome) {
	q.call.err = a.err
	q.before, q.call = q.call, nil
	if a.panic != nil {
		panic(a.panic) // on the goroutine that asks, which others may recover
	}
}

// unanswered is what a look is told that waits no longer.
func (q *question) unanswered(level election.Level, about any) error {
	if level == election.Basic && q.before != nil && q.before.about == about && time.Since(q.call.began) < q.cfg.heartbeat() {
		return q.before.err
	}
	return fmt.Errorf("%s has not answered since %s", q.name, q.call.began.UTC().Format(time.RFC3339))
}

// begin calls the function.
func (q *question) begin(ctx context.Context, about any, fn func(context.Context) error) *call {
	c := &call{about: about, began: time.Now(), reply: make(chan outcome, 1)}
	go func() {
		a := outcome{err: fmt.Errorf("%s ended its goroutine, as runtime.Goexit does", q.name)}
		defer func() {
			if a.panic = recover(); a.panic != nil {
				q.log.ErrorContext(ctx, "a hook has panicked", "hook", q.name, "panic", a.panic, "stack", string(debug.Stack()))
			}
			c.reply <- a
		}()
		a.err = fn(ctx)
	}()
	return c
}

// join waits for a call under way, whose context has ended, until ctx ends.
func (q *question) join(ctx context.Context) {
	if q.call == nil {
		return
	}
	select {
	case <-q.call.reply:
		q.call = nil
	case <-ctx.Done():
		q.log.WarnContext(ctx, "a hook has not returned, and is left behind", "hook", q.name)
	}
}
