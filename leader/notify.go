package leader

import (
	"fmt"
	"time"

	"github.com/fencepost/fencepost/internal/pace"
	"github.com/fencepost/fencepost/internal/spool"
)

// outlets are what a Leader says to others, beside its own path: none of its
// decisions waits for a reader. The log has an outlet of its own, in Config.Logger.
type outlets struct {
	notices *spool.Queue[string]
	changes *spool.Queue[Status]
}

const (
	waitingWords = 1024                   // that an outlet keeps
	farewell     = 250 * time.Millisecond // at the end of Run, for all outlets together
)

func newOutlets(cfg Config) outlets {
	var unread pace.Pace
	return outlets{
		notices: spool.New(waitingWords, func(assignment string, _ int) {
			err := cfg.Notify(assignment)
			if err == nil {
				unread.Succeed(time.Now())
			} else if left, due := unread.Fail(time.Now()); due {
				cfg.Logger.Warn("the service manager was not told", "assignment", assignment, "err", err, "more", left)
			}
		}),
		changes: spool.New(waitingWords, func(s Status, _ int) { cfg.Changed(s) }),
	}
}

// flush waits until everything is said, if it is read.
func (l *Leader) flush() {
	until := time.Now().Add(farewell)
	l.out.notices.Flush(time.Until(until))
	l.out.changes.Flush(time.Until(until))
	spool.Flush(l.log, time.Until(until))
	spool.Flush(l.cfg.Catalog.Logger, time.Until(until))
}

// tell says to the service manager how this process stands, if that differs from
// what it was told last. A process is ready once it has read everything: a deploy
// waits for the new process to be ready before it promotes it.
func (l *Leader) tell() {
	l.change()
	l.telling.Lock()
	defer l.telling.Unlock()
	s := l.Status()
	l.say(s.line())
	if seen := (sighting{s.Phase, s.Since, s.holding(), s.Serving}); seen != l.seen && l.cfg.Changed != nil {
		l.seen = seen
		l.out.changes.Put(s)
	}
	if !l.ready && (s.Phase == ReadyToPromote || s.Phase == Leading) {
		l.ready = true
		l.out.notices.Put("READY=1")
	}
}

// A sighting is what a change of is told.
type sighting struct {
	phase  Phase
	since  time.Time
	holder string
	serves bool
}

func (l *Leader) say(line string) {
	if line != l.told {
		l.told = line
		l.out.notices.Put("STATUS=" + line)
	}
}

// line is the status in one line, as systemctl status shows it.
func (s Status) line() string {
	switch s.Phase {
	case ReadyToPromote, Promoting:
		return s.waiting()
	case Leading:
		if !s.Serving {
			return fmt.Sprintf("%s, as %v", s.Reason, s.Token)
		}
		return fmt.Sprintf("leads as %v since %s", s.Token, s.Since.UTC().Format(time.RFC3339))
	case HandingOver, Unconfirmed:
		return fmt.Sprintf("%v as %v: %s", s.Phase, s.Token, s.Reason)
	case Superseded:
		return fmt.Sprintf("superseded by %v", s.holding())
	case Fenced:
		return fmt.Sprintf("fenced by %v of its own generation", s.holding())
	default:
		return fmt.Sprintf("%v: %s", s.Phase, s.Reason)
	}
}

func (s Status) waiting() string {
	switch {
	case s.Leader == nil:
		return fmt.Sprintf("generation %v is ready, and nobody ever led", s.Generation)
	case s.Leader.Token.Generation == s.Generation:
		return fmt.Sprintf("standby of %v, ready to take over", s.holding())
	default:
		return fmt.Sprintf("generation %v is ready to be promoted over %v", s.Generation, s.holding())
	}
}

// holding is the newest token that was seen, and whose it is.
func (s Status) holding() string {
	switch {
	case s.Leader == nil:
		return "an unknown token"
	case s.Leader.Holder.Name == "":
		return s.Leader.Token.String()
	default:
		return fmt.Sprintf("%v of %s", s.Leader.Token, s.Leader.Holder.Name)
	}
}
