//go:build unix

package lead

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/spool"
	"github.com/fencepost/fencepost/leader"
)

// Config is what runs, and how. Command, Keeper and Lead.Catalog.Generation are
// required.
type Config struct {
	Command []string // the program, looked up in PATH, and its arguments
	Keeper  Program  // a process that calls Keep with its standard input
	Lead    leader.Config

	Catalog    string                                  // FENCEPOST_CATALOG for the command; empty: none
	GuardedURL func(fence.Token) (url string, _ error) // FENCEPOST_GUARDED_URL for the command; nil: none
	TokenFile  string                                  // where the command finds its token, too; empty: nowhere
	Hidden     []string                                // variables that the command does not get

	StopSignal syscall.Signal // default SIGTERM
	StopGrace  time.Duration  // from the stop signal to SIGKILL where this process is to stop; default 30 s
	KillGrace  time.Duration  // from SIGKILL until what is still there is left behind; default 5 s

	// Prepare is a command line for /bin/sh that ends with 0 if the command could serve,
	// and is asked while this process waits for its turn; see leader.Config. It has
	// HookTimeout.
	Prepare string

	// Hold and Resume are command lines for /bin/sh, each for HookTimeout at most,
	// by default 5 s.
	Hold, Resume string
	HookTimeout  time.Duration

	Ready Ready

	// Stdin, Stdout and Stderr are handed to the command. The defaults are the
	// process's own.
	Stdin, Stdout, Stderr *os.File

	// Environ is the command's environment, as os.Environ has it, which is also the
	// default.
	Environ []string
}

// A Program is a program and its arguments, of which the first one is its name.
type Program struct {
	Path string
	Args []string
}

func (c Config) withDefaults() Config {
	c.StopSignal = cmp.Or(c.StopSignal, syscall.SIGTERM)
	c.StopGrace = cmp.Or(c.StopGrace, 30*time.Second)
	c.KillGrace = cmp.Or(c.KillGrace, 5*time.Second)
	c.HookTimeout = cmp.Or(c.HookTimeout, 5*time.Second)
	c.Lead.Lease = cmp.Or(c.Lead.Lease, 7500*time.Millisecond)
	c.Lead.HandoverTimeout = cmp.Or(c.Lead.HandoverTimeout, 5*time.Second)
	c.Lead.DrainTimeout = cmp.Or(c.Lead.DrainTimeout, 2*c.KillGrace+5*time.Second) // to see that nothing of it is left
	c.Stdin = cmp.Or(c.Stdin, os.Stdin)
	c.Stdout = cmp.Or(c.Stdout, os.Stdout)
	c.Stderr = cmp.Or(c.Stderr, os.Stderr)
	if c.Environ == nil {
		c.Environ = os.Environ()
	}
	if c.Lead.Logger == nil {
		c.Lead.Logger = slog.New(slog.DiscardHandler)
	}
	c.Lead.Logger = spool.Logger(c.Lead.Logger)
	if c.Lead.Notify == nil {
		c.Lead.Notify = exitcodes.Notify
	}
	return c
}

// stopTime is how much of a handover's time the hold hook and the command's end may
// take together. The rest is for the successor's claim.
func (c Config) stopTime() time.Duration { return c.Lead.HandoverTimeout * 3 / 4 }

// MainGrace is how long Run may take to return once its context has ended.
func (c Config) MainGrace() time.Duration {
	c = c.withDefaults()
	return c.StopGrace + 2*c.KillGrace + 5*time.Second // the last for the store and the keeper
}

// validate names every mistake at once. Those of Lead are found by leader.New.
func (c Config) validate() error {
	var errs []error
	if len(c.Command) == 0 || c.Command[0] == "" {
		errs = append(errs, errors.New("no command"))
	}
	for name, d := range map[string]time.Duration{
		"stop grace": c.StopGrace, "kill grace": c.KillGrace, "time-out of hooks": c.HookTimeout,
	} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("the %s is %v, below zero", name, d))
		}
	}
	errs = append(errs, c.Ready.validate())
	if err := errors.Join(errs...); err != nil {
		return exitcodes.WithCode(err, exitcodes.Usage)
	}
	return nil
}
