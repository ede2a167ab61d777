//go:build unix

package entrypoint

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/process"
	"github.com/fencepost/fencepost/internal/spool"
)

// A manager is the service manager that started run, such as systemd, and the
// way on which the child's words reach it: a socket of run's own, which the
// child gets in place of the manager's. Where there is no manager run still
// listens: whether the child is ready decides what its endings mean. What the child says of itself is not
// always so of the service: its STOPPING=1 before a restart would make the
// manager end run when the time for stopping is over.
type manager struct {
	words <-chan process.Word // what children say; nil without a relay
	name  string              // where they say it; "" likewise
	close func()

	ready bool // READY=1 was said

	notices *spool.Queue[[]string] // to the manager, which may have stopped reading
}

// relayed are the assignments that are so of the service where they are so of
// its child.
func relayed() []string { return []string{"READY", "STATUS", "EXTEND_TIMEOUT_USEC"} }

// openManager listens for children.
func (s *supervisor) openManager() {
	s.manager.close = func() {}
	s.manager.notices = s.newNotices()
	name, words, stop, err := process.Listen()
	if err != nil && os.Getenv(exitcodes.NotifySocketEnv) == "" {
		return // nobody else listens either, and a child that is up counts as healthy
	}
	if err != nil {
		s.tell("the service manager will not hear of the child what it says itself: %v", err)
		return
	}
	s.manager.name, s.manager.words, s.manager.close = name, words, stop
}

// hear passes on what the running child says. Others may know the socket, as
// whoever the child starts does; the manager would not listen to them either.
func (s *supervisor) hear(w process.Word) {
	if s.child.Group == nil || w.PID != s.child.PID() || s.child.HasExited() || s.stop != nil {
		return
	}
	lines := w.Lines()
	s.child.heed(lines)
	for _, line := range lines {
		name, _, _ := strings.Cut(line, "=")
		switch {
		case line == "READY=1":
			s.sayReady()
		case name != "READY" && slices.Contains(relayed(), name):
			s.say(line)
		}
	}
}

// heed remembers what a message says of the child's health. What it says from
// STOPPING=1 on is no word of its readiness: exitcodes.Main says that much for
// programs that never say they are ready.
func (c *child) heed(lines []string) {
	c.stopping = c.stopping || slices.Contains(lines, "STOPPING=1")
	if c.stopping {
		return
	}
	c.spoke = true
	if c.ready.IsZero() && slices.Contains(lines, "READY=1") {
		c.ready = time.Now()
	}
}

// sayReady says so once: a manager has no word for not being ready any more.
func (s *supervisor) sayReady() {
	if !s.manager.ready {
		s.manager.ready = true
		s.say("READY=1")
	}
}

// sayStarted stands for the child's word where that can't be heard.
func (s *supervisor) sayStarted() {
	if s.manager.words == nil {
		s.sayReady()
	}
}

// sayStopping asks for as much time as the group may take.
func (s *supervisor) sayStopping() {
	longest := s.cfg.StopGrace + s.cfg.KillGrace + time.Second // and a moment for run itself
	s.say("STOPPING=1", fmt.Sprintf("STATUS=stopping: signal %v", s.stop), fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", longest.Microseconds()))
}

// sayEnded is the last word. An end with 0 that was never ready would be taken
// for a failure, and answered by a start.
func (s *supervisor) sayEnded(code exitcodes.Code) {
	if code == exitcodes.Success {
		s.sayReady()
	}
	s.say("STOPPING=1")
}

// newNotices tells people once if the manager does not listen.
func (s *supervisor) newNotices() *spool.Queue[[]string] {
	const most = 1024 // messages that wait
	unheard := false
	return spool.New(most, func(assignments []string, _ int) {
		if err := exitcodes.Notify(assignments...); err != nil && !unheard {
			unheard = true
			s.tell("%v", err)
		}
	})
}

// say tells the service manager, and does not wait until it is read.
func (s *supervisor) say(assignments ...string) { s.manager.notices.Put(assignments) }

// announce is tell for a decision, which the service manager is told as well.
func (s *supervisor) announce(format string, args ...any) {
	s.tell(format, args...)
	s.say("STATUS=" + fmt.Sprintf(format, args...))
}
