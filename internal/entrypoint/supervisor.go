//go:build unix

package entrypoint

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/identity"
	"github.com/fencepost/fencepost/internal/process"
)

// Run starts cfg.Command, again and again where its endings ask for it, until
// it ends for good or SIGTERM or SIGINT request a stop. It returns the status
// with which the process is to end, and an error only where cfg is wrong or
// the command can't be executed.
//
// Run takes the process over: it receives its signals, for good, and waits for all of
// its children, so nothing else in the process can start any.
func Run(cfg Config) (exitcodes.Code, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return exitcodes.CodeOf(err), err
	}
	s := newSupervisor(cfg)
	defer s.close()
	defer s.flush()
	if err := process.AdoptOrphans(); err != nil {
		s.tell("orphans will not be reaped: %v", err)
	}
	code, err := s.run()
	s.sayEnded(code)
	return code, err
}

func newSupervisor(cfg Config) *supervisor {
	s := &supervisor{
		cfg:     cfg,
		people:  newPeople(cfg.Stderr),
		rules:   newRules(cfg),
		log:     process.NewRecords(exitcodes.RecordPath(process.Lookup(cfg.Environ))),
		reaper:  process.NewReaper(),
		signals: make(chan os.Signal, 16),
		deaths:  make(chan os.Signal, 1),
	}
	// SIGPIPE is received so that a reader of stderr that is gone ends nothing.
	signal.Notify(s.signals, append(process.Forwarded(), syscall.SIGPIPE)...)
	signal.Notify(s.deaths, syscall.SIGCHLD)
	s.openManager()
	return s
}

// close leaves the signals received: one that comes now must not take the place of the
// status with which the process is about to end.
func (s *supervisor) close() {
	signal.Stop(s.deaths)
	s.manager.close()
}

// flush waits for what is still to be said, if it is read.
func (s *supervisor) flush() {
	until := time.Now().Add(farewell)
	s.manager.notices.Flush(time.Until(until)) // which may have a line for people
	s.people.flush(time.Until(until))
	s.log.Close(time.Until(until))
}

// A supervisor is one call of Run. One goroutine starts, signals and reaps, so
// that no child is reaped before it is known.
type supervisor struct {
	people
	cfg      Config
	rules    *rules
	signals  chan os.Signal
	deaths   chan os.Signal // SIGCHLD; apart, so that many of them displace no other signal
	log      *process.Records
	reaper   *process.Reaper
	manager  manager
	restarts int

	child   child // the running one, or the last
	stop    os.Signal
	stopped time.Time // when stop came
}

// A child is a command that was started, and what it says of itself.
type child struct {
	*process.Group           // nil before the first start
	spoke          bool      // to the service manager, other than of its own end
	stopping       bool      // it said so
	ready          time.Time // when it first said READY=1; zero before
}

// waitedFor names the process of the last start, if it has ended and was waited for.
func (c child) waitedFor() string {
	if c.Group == nil {
		return ""
	}
	return c.WaitedFor().String()
}

func (s *supervisor) run() (exitcodes.Code, error) {
	for {
		e, err := s.attempt()
		if err != nil {
			return s.unstartable(err)
		}
		if s.stop != nil {
			return s.obeyed(e), nil
		}
		s.log.PassOn(e.summary())
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
	if err := s.log.Clear(); err != nil {
		s.tell("a superseded child can't be told from one that is done: %v", err)
	}
	if err := s.start(); err != nil {
		if !process.Passing(err, s.child.Group != nil) {
			return ending{}, err
		}
		return notStarted(err), nil
	}
	s.sayStarted()
	for !s.child.Gone() {
		select {
		case sig := <-s.signals:
			s.receive(sig)
		case <-s.deaths:
			s.reaper.Reap()
			s.child.Look()
		case <-s.child.Poll():
			s.reaper.Reap()
			s.child.Look()
		case w := <-s.manager.words:
			s.hear(w)
		case <-s.child.Due():
			s.child.Force()
		}
	}
	e := s.child.ending()
	e.record = s.log.Read(e.code)
	return e, nil
}

// start starts the command, with its own place for the record, and for what it
// says to the service manager.
func (s *supervisor) start() error {
	group, err := s.reaper.Start(process.Spec{
		Command: s.cfg.Command,
		Environ: process.With(s.cfg.Environ, map[string]string{
			exitcodes.TerminationLogEnv: s.log.Path(), exitcodes.NotifySocketEnv: s.manager.name,
			identity.EndedEnv: s.child.waitedFor(),
		}),
		Files:     [3]*os.File{s.cfg.Stdin, s.cfg.Stdout, s.cfg.Stderr},
		StopGrace: s.cfg.StopGrace, KillGrace: s.cfg.KillGrace, Tell: s.tell, DieWithParent: true,
	})
	if err == nil {
		s.child = child{Group: group}
	}
	return err
}

// receive obeys one signal: it goes to the group of the child, if there is one,
// and a stop is remembered. A stop that belongs to the one before is that one.
func (s *supervisor) receive(sig os.Signal) {
	if sig == syscall.SIGPIPE {
		return
	}
	first := isStop(sig) && s.stop == nil
	if first {
		s.stop, s.stopped = sig, time.Now()
		s.sayStopping()
	}
	switch {
	case isStop(sig) && !first && time.Since(s.stopped) < exitcodes.StopWindow:
	case s.child.Group == nil:
	case first:
		s.child.Stop(sig.(syscall.Signal), s.cfg.StopGrace)
	default:
		s.child.Signal(sig.(syscall.Signal))
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
			s.reaper.Reap()
		case w := <-s.manager.words:
			s.hear(w)
		case <-timer.C:
			return true
		}
	}
	return false
}

// obeyed is the end by a stop that the child obeyed with e.
func (s *supervisor) obeyed(e ending) exitcodes.Code {
	r := e.summary()
	r.Code, r.StopRequested = e.final(), true
	s.log.PassOn(r)
	s.announce("%v after signal %v: done%s (exit %d)", e, s.stop, s.counted(), r.Code)
	return r.Code
}

// stoppedBetween is the end by a stop while no child ran.
func (s *supervisor) stoppedBetween() exitcodes.Code {
	s.announce("signal %v while no child ran: done%s (exit 0)", s.stop, s.counted())
	return exitcodes.Success
}

func (c child) ending() ending {
	at := c.Ended()
	e := ending{pid: c.PID(), at: at, uptime: at.Sub(c.Started()), spoke: c.spoke, code: c.Code(), signal: c.KilledBy()}
	if !c.ready.IsZero() {
		e.ready = at.Sub(c.ready)
	}
	return e
}

// unstartable is the end of a run whose command can't be executed.
func (s *supervisor) unstartable(err error) (exitcodes.Code, error) {
	code := process.Unstartable(err)
	err = fmt.Errorf("can't start %q: %w", s.cfg.Command[0], err)
	s.log.PassOn(ending{code: code, record: &exitcodes.Record{
		Disposition: exitcodes.None.String(), Code: code, Reason: err.Error(), Name: "fencepost run", At: time.Now().UTC(),
	}}.summary())
	return code, err
}

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
