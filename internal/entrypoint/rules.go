package entrypoint

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/fencepost/fencepost/exitcodes"
)

// The statuses of a command that can't be started, as shells have them.
const (
	notExecutable exitcodes.Code = 126
	notFound      exitcodes.Code = 127
)

// An ending is how a child ended.
type ending struct {
	pid    int
	code   exitcodes.Code // 128 plus the signal's number where one killed it
	signal syscall.Signal // that killed it; 0 for none
	uptime time.Duration
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

// rules decide what follows each ending. They remember the endings since a
// child was last healthy.
type rules struct {
	cfg    Config
	delays *backoff.ExponentialBackOff
	halted bool // a halt has been answered at once
}

func newRules(cfg Config) *rules {
	delays := backoff.NewExponentialBackOff()
	delays.InitialInterval = cfg.FirstDelay
	delays.MaxInterval = cfg.MaxDelay
	delays.Multiplier = 2
	r := &rules{cfg: cfg, delays: delays}
	r.forget()
	return r
}

func (r *rules) forget() {
	r.delays.Reset()
	r.halted = false
}

// after returns what follows e, and for a restart after which delay.
func (r *rules) after(e ending) (step, time.Duration) {
	if e.uptime >= r.cfg.HealthyAfter {
		r.forget()
	}
	switch {
	case e.superseded() && r.cfg.OnSuperseded == Park:
		return park, 0
	case e.code == exitcodes.Success, e.code == exitcodes.Usage:
		return finish, 0
	case e.code == exitcodes.Config:
		return restart, r.cfg.MaxDelay
	case e.code == exitcodes.Restart && !r.halted:
		r.halted = true
		return restart, 0
	default:
		return restart, min(r.delays.NextBackOff(), r.cfg.MaxDelay)
	}
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
