// Package entrypoint keeps one command running, as the first process of a
// container or under any supervisor: it starts the command again when its exit
// status asks for that, and leaves it down for ever once its ending record
// says that a newer generation leads.
//
// What follows an ending is one table, in rules.go:
//
//	the child ended with                  then
//	0, and its record says superseded     parked until told to stop, or the end with 0
//	any other 0                           the end, with 0
//	64                                    the end, with 64: a restart mends no command line
//	166, a halt                           restart at once the first time, then with back-off
//	128+n, a signal                       likewise
//	78                                    restart after the longest delay
//	75, 2, other codes                    restart with back-off
//	anything, after a requested stop      the end, with the child's code
//
// Back-off doubles from 1 s to 30 s, with jitter, and starts anew once a child
// was healthy for a minute: ready, by its own READY=1, or up, where it never says
// anything at NOTIFY_SOCKET. One that speaks there and is never ready was never
// healthy, however long it was up. A record counts only where its code is the one
// that the child really ended with.
//
// Halts have a budget besides: five within ten minutes. Further ones wait, with
// delays that grow likewise and that no health resets, until the ten minutes hold
// no more than five again. So two equals that fence each other for ever, healthy
// in between, do it a few times a minute at most.
//
// SIGTERM and SIGINT request a stop. They, and SIGHUP, SIGQUIT, SIGUSR1 and
// SIGUSR2, go to the whole process group of the child, but for a further stop
// within exitcodes.StopWindow of the first, which belongs to the same request. What is still there of
// the group once the child has ended gets SIGTERM, and SIGKILL after the stop
// grace; only then is anything started again. What even SIGKILL does not end,
// such as a process that waits for a dead disk, is left behind after a while,
// and said. Orphans are reaped.
//
// The child's process group is never the foreground one of a terminal: a child
// that reads the terminal is stopped by it (SIGTTIN) until it is killed. It
// needs another standard input. To hand the terminal over would take Ctrl-C
// away from run, which would then answer it with a restart.
//
// If run itself is killed, by SIGKILL say, the kernel kills the child (Linux): a
// server without run would lead on while the next one starts. Only the child itself
// is killed, so a shell script must exec its server. A program with set-user-ID or
// file capabilities is not killed.
//
// Nobody who reads holds run up: its lines, the record that it passes on and what it
// tells the service manager are written beside its path, and at its end it waits
// for them for half a second.
//
// The child always finds a NOTIFY_SOCKET of run's own, on Linux. A service manager
// that listens at run's, as systemd does for a unit of Type=notify, hears from run
// and not from the child: READY=1 when the child
// says it, or when run parks; a STATUS for each decision, and between them the
// child's own; STOPPING=1 and the time that it takes when a stop is requested.
// Only the child itself is listened to, not whom it starts.
//
// A child that is started again finds the identity of the one before it in
// FENCEPOST_ENDED, if run has waited for that one: the new one need not wait until the
// other is known to be dead.
//
// The package does not decide who is superseded or fenced: the child's codes
// and record say so, in the words of package exitcodes.
package entrypoint

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/loopback"
	"github.com/fencepost/fencepost/internal/spool"
)

// OnSuperseded says what follows when the child was superseded.
type OnSuperseded string

const (
	// Park stays up, doing nothing, until told to stop: for supervisors that
	// would start an ended container again.
	Park OnSuperseded = "park"

	// End ends with 0: for supervisors that leave a success alone.
	End OnSuperseded = "exit"
)

// Config is what runs, and how. Only Command is required.
type Config struct {
	Command []string // the program, looked up in PATH, and its arguments

	// Admin is where to answer while parked, as host:port on loopback, when the
	// child's record names no address. Empty: nowhere.
	Admin        string
	OnSuperseded OnSuperseded // the default is Park

	StopGrace    time.Duration // from the stop to SIGKILL for the group; default 30 s
	KillGrace    time.Duration // from SIGKILL until what is still there is left behind; default 5 s
	HealthyAfter time.Duration // ready (or, if it is silent, up) for that long, a child's earlier endings are forgotten; default 60 s
	FirstDelay   time.Duration // of the back-off; default 1 s
	MaxDelay     time.Duration // of the back-off; default 30 s
	BindTimeout  time.Duration // for the admin address to become free when parked; default 30 s

	// HaltBudget is how many halts (166) within HaltWindow may be answered at
	// once, health or not; further ones wait. The defaults are 5 and 10 min.
	HaltBudget int
	HaltWindow time.Duration

	// Stdin, Stdout and Stderr are handed to the child; Stderr also takes a
	// line for every decision. The defaults are the process's own.
	Stdin, Stdout, Stderr *os.File

	// Environ is the child's environment, as os.Environ has it, which is also
	// the default.
	Environ []string
}

func (c Config) withDefaults() Config {
	c.OnSuperseded = cmp.Or(c.OnSuperseded, Park)
	c.StopGrace = cmp.Or(c.StopGrace, 30*time.Second)
	c.KillGrace = cmp.Or(c.KillGrace, 5*time.Second)
	c.HealthyAfter = cmp.Or(c.HealthyAfter, time.Minute)
	c.FirstDelay = cmp.Or(c.FirstDelay, time.Second)
	c.MaxDelay = cmp.Or(c.MaxDelay, 30*time.Second)
	c.BindTimeout = cmp.Or(c.BindTimeout, 30*time.Second)
	c.HaltBudget = cmp.Or(c.HaltBudget, 5)
	c.HaltWindow = cmp.Or(c.HaltWindow, 10*time.Minute)
	c.Stdin = cmp.Or(c.Stdin, os.Stdin)
	c.Stdout = cmp.Or(c.Stdout, os.Stdout)
	c.Stderr = cmp.Or(c.Stderr, os.Stderr)
	if c.Environ == nil {
		c.Environ = os.Environ()
	}
	return c
}

// validate names every mistake at once.
func (c Config) validate() error {
	var errs []error
	if len(c.Command) == 0 || c.Command[0] == "" {
		errs = append(errs, errors.New("no command: say fencepost run -- CMD ARGS..."))
	}
	if c.Admin != "" && !loopback.Is(c.Admin) {
		errs = append(errs, fmt.Errorf("the admin address %q is not on loopback: want one such as 127.0.0.1:7001", c.Admin))
	}
	if c.OnSuperseded != Park && c.OnSuperseded != End {
		errs = append(errs, fmt.Errorf("on superseded is %q, want %q or %q", c.OnSuperseded, Park, End))
	}
	for name, d := range map[string]time.Duration{
		"stop grace": c.StopGrace, "kill grace": c.KillGrace, "healthy after": c.HealthyAfter, "first delay": c.FirstDelay,
		"longest delay": c.MaxDelay, "bind time-out": c.BindTimeout, "halt window": c.HaltWindow,
	} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s is %v, below zero", name, d))
		}
	}
	if c.HaltBudget < 0 {
		errs = append(errs, fmt.Errorf("halt budget is %d, below zero", c.HaltBudget))
	}
	if err := errors.Join(errs...); err != nil {
		return exitcodes.WithCode(err, exitcodes.Usage)
	}
	return nil
}

// Main runs cfg.Command as [Run] does, until told to stop, and says an error
// on standard error. It returns the status with which the process is to end.
func Main(cfg Config) exitcodes.Code {
	code, err := Run(cfg)
	if err != nil {
		p := newPeople(cmp.Or(cfg.Stderr, os.Stderr))
		p.tell("%v (exit %d)", err, code)
		p.flush(farewell)
	}
	return code
}

// farewell is how long run waits at its end for whoever reads its lines, its
// record, or what it tells the service manager.
const farewell = 500 * time.Millisecond

// people read standard error, or have stopped reading.
type people struct{ lines *spool.Queue[string] }

func newPeople(stderr io.Writer) people {
	const most = 1024 // lines that wait
	return people{spool.New(most, func(line string, dropped int) {
		if dropped > 0 {
			line = fmt.Sprintf("fencepost run: %d lines were dropped, since they were not read\n%s", dropped, line)
		}
		_, _ = fmt.Fprintln(stderr, line) // nobody is left to tell
	})}
}

// tell says one line, and does not wait until it is written.
func (p people) tell(format string, args ...any) {
	p.lines.Put("fencepost run: " + exitcodes.OneLine(fmt.Sprintf(format, args...)))
}

// Write tells what package log has to say, a line at a time.
func (p people) Write(line []byte) (int, error) {
	p.tell("%s", line)
	return len(line), nil
}

func (p people) flush(within time.Duration) { p.lines.Flush(within) }
