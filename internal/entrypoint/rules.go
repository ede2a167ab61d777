package entrypoint

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/fencepost/fencepost/exitcodes"
)

// An ending is how a child ended.
type ending struct {
	pid    int
	code   exitcodes.Code // 128 plus the signal's number where one killed it
	signal syscall.Signal // that killed it; 0 for none
	at     time.Time      // when it ended
	uptime time.Duration
	spoke  bool              // it said something to the service manager before it was stopping
	ready  time.Duration     // since it first said READY=1; 0 where it never did
	record *exitcodes.Record // nil where the child left none that fits
}

// notStarted is the ending of a start for which only resources were missing.
func notStarted(err error) ending {
	return ending{code: exitcodes.TempFail, record: &exitcodes.Record{
		Disposition: exitcodes.Retry.String(), Code: exitcodes.TempFail, Reason: "no child was started: " + err.Error(),
		Name: "fencepost run", PID: os.Getpid(), At: time.Now().UTC(),
	}}
}

func (e ending) superseded() bool {
	return e.code == exitcodes.Success && e.record != nil && e.record.Superseded
}

// bySignal reports whether a signal ended the child, or a process beneath it, of
// which shells say so by their own status.
func (e ending) bySignal() bool {
	const first, last = 129, 192 // 128 plus the number of a signal
	return e.code >= first && e.code <= last
}

// healthy reports whether the child was well for long enough to forget what was
// before. One that speaks was well once it said that it is ready; of one that
// has no word for that, being up is all there is.
func (e ending) healthy(long time.Duration) bool {
	if e.spoke {
		return e.ready >= long
	}
	return e.uptime >= long
}

// String says how the child ended, and why.
func (e ending) String() string {
	if e.pid == 0 && e.record != nil {
		return exitcodes.OneLine(e.record.Reason)
	}
	how := fmt.Sprintf("exited %d", e.code)
	if e.signal != 0 {
		how = fmt.Sprintf("was killed by signal %d (%v)", int(e.signal), e.signal)
	}
	if e.record != nil && e.record.Reason != "" {
		how += " (" + exitcodes.OneLine(e.record.Reason) + ")"
	}
	return fmt.Sprintf("child %d %s", e.pid, how)
}

// summary is the record to pass on: the child's own, else what was seen of it.
func (e ending) summary() exitcodes.Record {
	if e.record != nil {
		return *e.record
	}
	return exitcodes.Record{
		Disposition: exitcodes.None.String(),
		Code:        e.code,
		Reason:      e.String() + " and left no ending record",
		Name:        "fencepost run",
		PID:         os.Getpid(),
		At:          time.Now().UTC(),
	}
}

// A step is what follows an ending.
type step uint8

const (
	finish step = iota
	park
	restart
)

// A decision is the step that follows an ending.
type decision struct {
	step  step
	delay time.Duration // before a restart
	why   string        // it is that long, where the ending alone does not say; may be empty
}

// rules decide what follows each ending. They remember the endings since a
// child was last healthy, and longer than that only the halts.
type rules struct {
	cfg    Config
	delays *backoff.ExponentialBackOff // since a child was last healthy
	halted bool                        // a halt was answered at once since then
	killed bool                        // likewise an end by a signal
	budget budget                      // of halts, whoever was healthy
	spent  *backoff.ExponentialBackOff // since the budget was last enough
}

func newRules(cfg Config) *rules {
	return &rules{
		cfg: cfg, delays: growing(cfg), spent: growing(cfg),
		budget: budget{size: cfg.HaltBudget, window: cfg.HaltWindow},
	}
}

// growing are delays that double.
func growing(cfg Config) *backoff.ExponentialBackOff {
	delays := backoff.NewExponentialBackOff()
	delays.InitialInterval = cfg.FirstDelay
	delays.MaxInterval = cfg.MaxDelay
	delays.Multiplier = 2
	delays.Reset()
	return delays
}

func (r *rules) forget() {
	r.delays.Reset()
	r.halted, r.killed = false, false
}

// after returns what follows e.
func (r *rules) after(e ending) decision {
	if e.healthy(r.cfg.HealthyAfter) {
		r.forget()
	}
	switch {
	case e.superseded() && r.cfg.OnSuperseded == Park:
		return decision{step: park}
	case e.code == exitcodes.Success, e.code == exitcodes.Usage:
		return decision{step: finish}
	case e.code == exitcodes.Config:
		return decision{step: restart, delay: r.cfg.MaxDelay}
	case e.code == exitcodes.Restart:
		return r.afterHalt(e)
	case e.bySignal() && !r.killed: // such as for want of memory: it is known to be dead, and the next may lead at once
		r.killed = true
		return decision{step: restart}
	default:
		return decision{step: restart, delay: r.next(r.delays)}
	}
}

// afterHalt restarts at once the first time since a child was healthy, as long
// as the budget lasts; else after the longer one of the two delays.
func (r *rules) afterHalt(e ending) decision {
	d := decision{step: restart}
	if r.halted {
		d.delay = r.next(r.delays)
	}
	r.halted = true
	if r.budget.spend(e.at) {
		r.spent.Reset()
		return d
	}
	d.delay, d.why = max(d.delay, r.next(r.spent)), r.budget.String()
	return d
}

func (r *rules) next(delays *backoff.ExponentialBackOff) time.Duration {
	return min(delays.NextBackOff(), r.cfg.MaxDelay)
}

// final is the status of run when a stop was requested and the child then
// ended with e. A child that died of the request has obeyed it.
func (e ending) final() exitcodes.Code {
	if isStop(e.signal) {
		return exitcodes.Success
	}
	return e.code
}

func isStop(sig os.Signal) bool {
	return sig == syscall.SIGTERM || sig == syscall.SIGINT
}
