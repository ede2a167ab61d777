//go:build unix

package process

import (
	"errors"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/identity"
)

// pollGroup is the pace of looking for the end of a process group. On Linux all of the
// group become children of this process, and each child's end is told by SIGCHLD, too.
// Elsewhere orphans become another process's children.
const pollGroup = 50 * time.Millisecond

// A Group is a command that was started, and its process group, which has its
// id. Exited and News may be used by any goroutine, the rest by one.
type Group struct {
	spec    Spec
	pid     int
	started time.Time
	who     identity.Process // of the command; zero if the system does not tell

	exited chan struct{}      // closed when the command is reaped
	news   chan struct{}      // holds one after any child of this process was reaped
	status syscall.WaitStatus // once exited is closed
	ended  time.Time          // likewise

	seen   bool // that the command has ended
	asked  bool // the whole group was sent a signal that asks it to end
	killed bool // likewise SIGKILL
	left   bool // it was left behind
	gone   bool // it has ended, or was left behind

	due   <-chan time.Time // fires when the grace, or that after SIGKILL, is over; nil while there is no hurry
	until time.Time        // when due fires
	grace time.Duration    // that leads up to it
}

// PID is the id of the command, and of its group.
func (g *Group) PID() int { return g.pid }

// WaitedFor returns the identity of the command once it has ended and was waited for.
// Before, and if the system tells no identities, it is that of no process.
func (g *Group) WaitedFor() identity.Process {
	select {
	case <-g.exited:
		return g.who
	default:
		return identity.Process{}
	}
}

// Exited is closed once the command has ended and was reaped. Others of its
// group may still be there.
func (g *Group) Exited() <-chan struct{} { return g.exited }

// News receives whenever it is worth calling Look.
func (g *Group) News() <-chan struct{} { return g.news }

// HasExited reports whether the command has ended.
func (g *Group) HasExited() bool {
	select {
	case <-g.exited:
		return true
	default:
		return g.left
	}
}

// Gone reports whether the whole group has ended, or was left behind.
func (g *Group) Gone() bool { return g.gone }

// Signal sends sig to the whole group, unless that has ended: its id may then be
// another's.
func (g *Group) Signal(sig syscall.Signal) {
	if !g.gone {
		_ = syscall.Kill(-g.pid, sig) // the last of the group may just have ended
	}
}

// Stop asks the group to end, and gives it a grace, from the first call on: a
// later one only shortens what is left.
func (g *Group) Stop(sig syscall.Signal, grace time.Duration) {
	g.asked = true
	g.Signal(sig)
	g.Hurry(grace)
}

// Kill sends SIGKILL to the group at once.
func (g *Group) Kill() {
	if g.killed || g.gone {
		return
	}
	g.asked, g.killed = true, true
	g.Signal(syscall.SIGKILL)
	g.within(g.spec.KillGrace)
}

// Hurry gives the group a grace, unless less is left of an earlier one.
func (g *Group) Hurry(grace time.Duration) {
	if !g.killed && !g.gone && (g.due == nil || time.Until(g.until) > grace) {
		g.within(grace)
	}
}

func (g *Group) within(grace time.Duration) {
	g.due, g.until, g.grace = time.After(grace), time.Now().Add(grace), grace
}

// Due fires when it is time to call Force.
func (g *Group) Due() <-chan time.Time { return g.due }

// Force ends the group by SIGKILL, and the second time leaves behind what is
// still there: what waits in the kernel, or was never reaped by its own parent.
func (g *Group) Force() {
	if !g.killed {
		after := g.grace
		g.Kill() // first: whoever reads what is told may have stopped reading
		g.spec.Tell("the group of child %d is still there after %v: SIGKILL", g.pid, after)
		return
	}
	g.spec.Tell("the group of child %d is still there %v after SIGKILL: it is left behind", g.pid, g.grace)
	g.left, g.gone, g.due = true, true, nil
}

// Poll fires soon where only the rest of the group is waited for.
func (g *Group) Poll() <-chan time.Time {
	if !g.HasExited() {
		return nil
	}
	return time.After(pollGroup)
}

// Look notices that the command has ended, upon which the rest of its group is
// asked to end too, and that the group has.
func (g *Group) Look() {
	if g.gone || !g.HasExited() {
		return
	}
	there := g.isThere()
	if !g.seen {
		g.seen = true
		if there && !g.asked { // else the whole group has it already, and a second one cuts an ending short
			g.Signal(syscall.SIGTERM)
		}
		if there {
			g.Hurry(g.spec.StopGrace)
		}
	}
	if !there {
		g.gone, g.due = true, nil
	}
}

func (g *Group) isThere() bool {
	return !errors.Is(syscall.Kill(-g.pid, 0), syscall.ESRCH)
}

// Await returns once the group has ended, or was left behind.
func (g *Group) Await() {
	for g.Look(); !g.gone; g.Look() {
		select {
		case <-g.news:
		case <-g.Poll():
		case <-g.due:
			g.Force()
		}
	}
}

// Started is when the command was started.
func (g *Group) Started() time.Time { return g.started }

// Ended is when it ended, and until then now.
func (g *Group) Ended() time.Time {
	select {
	case <-g.exited:
		return g.ended
	default:
		return time.Now()
	}
}

// Code is the status with which the command ended: 128 plus the number of a
// signal that killed it, as of one that was left behind.
func (g *Group) Code() exitcodes.Code {
	if sig := g.KilledBy(); sig != 0 {
		return 128 + exitcodes.Code(sig)
	}
	return exitcodes.Code(g.status.ExitStatus())
}

// KilledBy is the signal that killed the command; 0 for none.
func (g *Group) KilledBy() syscall.Signal {
	select {
	case <-g.exited:
	default:
		return syscall.SIGKILL // as it will end, if it ever does
	}
	if g.status.Signaled() {
		return g.status.Signal()
	}
	return 0
}
