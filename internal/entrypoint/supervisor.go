//go:build unix

package entrypoint

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
)

// pollGroup is how often the end of a process group is looked for. Whoever is
// a child of this process also announces its end by SIGCHLD; elsewhere than on
// Linux orphans are somebody else's children.
const pollGroup = 50 * time.Millisecond

// Run starts cfg.Command, again and again where its endings ask for it, until
// it ends for good or SIGTERM or SIGINT request a stop. It returns the status
// with which the process is to end, and an error only where cfg is wrong or
// the command can't be executed.
//
// Run takes the process over: it receives its signals and waits for all of its
// children, so nothing else in the process can start any.
func Run(cfg Config) (exitcodes.Code, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return exitcodes.CodeOf(err), err
	}
	s := newSupervisor(cfg)
	defer s.close()
	if err := adoptOrphans(); err != nil {
		s.tell("orphans will not be reaped: %v", err)
	}
	code, err := s.run()
	s.sayEnded(code)
	return code, err
}

func newSupervisor(cfg Config) *supervisor {
	s := &supervisor{
		cfg:     cfg,
		rules:   newRules(cfg),
		log:     newRecordLog(cfg),
		signals: make(chan os.Signal, 16),
		deaths:  make(chan os.Signal, 1),
	}
	// SIGPIPE is received so that a reader of stderr that is gone ends nothing.
	signal.Notify(s.signals, append(forwarded(), syscall.SIGPIPE)...)
	signal.Notify(s.deaths, syscall.SIGCHLD)
	s.openManager()
	return s
}

func (s *supervisor) close() {
	signal.Stop(s.signals)
	signal.Stop(s.deaths)
	s.manager.close()
	s.log.close()
}

func forwarded() []os.Signal {
	return []os.Signal{
		syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
	}
}

// A supervisor is one call of Run. One goroutine starts, signals and reaps, so
// that no child is reaped before it is known.
type supervisor struct {
	cfg      Config
	rules    *rules
	signals  chan os.Signal
	deaths   chan os.Signal // SIGCHLD; apart, so that many of them displace no other signal
	log      *recordLog
	manager  manager
	restarts int

	child child // the running one, or the last
	stop  os.Signal
	kill  <-chan time.Time // fires when the group's grace, or that after SIGKILL, is over; nil while there is no hurry
}

// A child is a process that was started, and its group, which has its id.
type child struct {
	pid      int // 0 before the first start
	started  time.Time
	spoke    bool                // to the service manager, other than of its own end
	stopping bool                // it said so
	ready    time.Time           // when it first said READY=1; zero before
	status   *syscall.WaitStatus // nil while it runs
	ended    time.Time
	killed   bool // its group was sent SIGKILL
	gone     bool // its whole group has ended, or was left behind
}

func (s *supervisor) run() (exitcodes.Code, error) {
	for {
		e, err := s.attempt()
		if err != nil {
			return s.unstartable(err)
		}
		if s.stop != nil {
			return s.stopped(e), nil
		}
		s.log.passOn(e.summary())
		next := s.rules.after(e)
		switch next.step {
		case finish:
			s.announce("%v: done%s (exit %d)", e, s.counted(), e.code)
			return e.code, nil
		case park:
			return s.park(e), nil
		}
		s.announce("%v: restarting %s%s", e, next, s.counted())
		if !s.pause(next.delay) {
			return s.stoppedBetween(), nil
		}
		s.restarts++
	}
}

// attempt starts the command and returns when it and its group have ended. A
// start for which only resources were missing counts as an ending.
func (s *supervisor) attempt() (ending, error) {
	if err := s.log.clear(); err != nil {
		s.tell("a superseded child can't be told from one that is done: %v", err)
	}
	if err := s.start(); err != nil {
		if !passing(err, s.child.pid != 0) {
			return ending{}, err
		}
		return notStarted(err), nil
	}
	s.sayStarted()
	for !s.child.gone {
		select {
		case sig := <-s.signals:
			s.receive(sig)
		case <-s.deaths:
			s.look()
		case <-s.child.poll():
			s.look()
		case w := <-s.manager.words:
			s.hear(w)
		case <-s.kill:
			s.force()
		}
	}
	e := s.child.ending()
	e.record = s.log.read(e.code)
	return e, nil
}

// force ends the group by SIGKILL, and the second time leaves behind what is
// still there: what waits in the kernel, or was never reaped by its own parent.
func (s *supervisor) force() {
	if !s.child.killed {
		s.tell("the group of child %d is still there after %v: SIGKILL", s.child.pid, s.cfg.StopGrace)
		s.signalGroup(syscall.SIGKILL)
		s.child.killed, s.kill = true, time.After(s.cfg.KillGrace)
		return
	}
	s.tell("the group of child %d is still there %v after SIGKILL: it is left behind", s.child.pid, s.cfg.KillGrace)
	if s.child.status == nil {
		killed := syscall.WaitStatus(syscall.SIGKILL) // as it will end, if it ever does
		s.child.status, s.child.ended = &killed, time.Now()
	}
	s.child.gone, s.kill = true, nil
}

// poll fires soon where only the rest of the group is waited for.
func (c child) poll() <-chan time.Time {
	if c.status == nil {
		return nil
	}
	return time.After(pollGroup)
}

// receive obeys one signal: it goes to the group of the child, if there is one,
// and a stop is remembered.
func (s *supervisor) receive(sig os.Signal) {
	if sig == syscall.SIGPIPE {
		return
	}
	if isStop(sig) && s.stop == nil {
		s.stop = sig
		s.sayStopping()
		s.hurry()
	}
	s.signalGroup(sig.(syscall.Signal))
}

// look reaps whoever has ended. When that is the child, the rest of its group
// is asked to end too.
func (s *supervisor) look() {
	running := s.child.pid != 0 && s.child.status == nil
	s.reap()
	if running && s.child.status != nil && s.groupIsThere() {
		if s.stop == nil { // else the whole group has it already, and a second one cuts an ending short
			s.signalGroup(syscall.SIGTERM)
		}
		s.hurry()
	}
	if s.child.status != nil && !s.groupIsThere() {
		s.child.gone = true
		s.kill = nil
	}
}

// hurry gives the group its grace, from the first reason on.
func (s *supervisor) hurry() {
	if s.kill == nil && !s.child.gone && s.child.pid != 0 {
		s.kill = time.After(s.cfg.StopGrace)
	}
}

// pause waits for d, reaping, and reports false when a stop is requested.
func (s *supervisor) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for s.stop == nil {
		select {
		case sig := <-s.signals:
			s.receive(sig)
		case <-s.deaths:
			s.reap()
		case w := <-s.manager.words:
			s.hear(w)
		case <-timer.C:
			return true
		}
	}
	return false
}

// stopped is the end by a stop that the child obeyed with e.
func (s *supervisor) stopped(e ending) exitcodes.Code {
	r := e.summary()
	r.Code, r.StopRequested = e.final(), true
	s.log.passOn(r)
	s.announce("%v after signal %v: done%s (exit %d)", e, s.stop, s.counted(), r.Code)
	return r.Code
}

// stoppedBetween is the end by a stop while no child ran.
func (s *supervisor) stoppedBetween() exitcodes.Code {
	s.announce("signal %v while no child ran: done%s (exit 0)", s.stop, s.counted())
	return exitcodes.Success
}

func (c child) ending() ending {
	e := ending{pid: c.pid, at: c.ended, uptime: c.ended.Sub(c.started), spoke: c.spoke, code: exitcodes.Code(c.status.ExitStatus())}
	if !c.ready.IsZero() {
		e.ready = c.ended.Sub(c.ready)
	}
	if c.status.Signaled() {
		e.signal = c.status.Signal()
		e.code = 128 + exitcodes.Code(e.signal)
	}
	return e
}

// unstartable is the end of a run whose command can't be executed.
func (s *supervisor) unstartable(err error) (exitcodes.Code, error) {
	code := notExecutable
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errNotFound) {
		code = notFound
	}
	err = fmt.Errorf("can't start %q: %w", s.cfg.Command[0], err)
	s.log.passOn(ending{code: code, record: &exitcodes.Record{
		Disposition: exitcodes.None.String(), Code: code, Reason: err.Error(), Name: "fencepost run", At: time.Now().UTC(),
	}}.summary())
	return code, err
}

func (s *supervisor) tell(format string, args ...any) { tell(s.cfg.Stderr, format, args...) }

// counted is the number of restarts so far, for the end of a line.
func (s *supervisor) counted() string {
	switch s.restarts {
	case 0:
		return ""
	case 1:
		return ", after 1 restart"
	default:
		return fmt.Sprintf(", after %d restarts", s.restarts)
	}
}

// String says when a restart comes, and why so late.
func (d decision) String() string {
	if d.delay == 0 {
		return "at once"
	}
	when := "in " + d.delay.Round(time.Millisecond).String()
	if d.why != "" {
		when += ": " + d.why
	}
	return when
}
