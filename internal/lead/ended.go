//go:build unix

package lead

import (
	"fmt"
	"os/exec"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/process"
)

// An EndedError says that the command has ended by itself, or can't be started, and
// with which status this process is to end: the command's own.
type EndedError struct {
	Code exitcodes.Code // 128 plus the number of a signal that killed it; 126 or 127 where it can't be started
	text string
}

func (e *EndedError) Error() string { return e.text }

// Disposition is none: the status is an application's own.
func (e *EndedError) Disposition() exitcodes.Disposition { return exitcodes.None }

// ExitCode is the command's status.
func (e *EndedError) ExitCode() exitcodes.Code { return e.Code }

// unstartable is why the command can't be started. One that is only being replaced,
// or finds no memory, may be startable later.
func unstartable(command string, err error, ran bool) error {
	wrapped := fmt.Errorf("can't start %q: %w", command, err)
	if process.Passing(err, ran) {
		return exitcodes.With(wrapped, exitcodes.Retry)
	}
	return &EndedError{Code: process.Unstartable(err), text: wrapped.Error()}
}

// startable finds out before this process waits for its turn whether the command is
// there at all.
func startable(command string) error {
	if _, err := exec.LookPath(command); err != nil {
		return unstartable(command, err, false)
	}
	return nil
}

// own is the error of a command that has ended by itself; nil where it was done.
func own(g *process.Group, record *exitcodes.Record) error {
	if g.Code() == exitcodes.Success {
		return nil
	}
	how := fmt.Sprintf("exited %d", g.Code())
	if sig := g.KilledBy(); sig != 0 {
		how = fmt.Sprintf("was killed by signal %d (%v)", int(sig), sig)
	}
	if record != nil && record.Reason != "" {
		how += " (" + exitcodes.OneLine(record.Reason) + ")"
	}
	return &EndedError{Code: g.Code(), text: fmt.Sprintf("the command (process %d) %s", g.PID(), how)}
}
