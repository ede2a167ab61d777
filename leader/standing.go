package leader

import (
	"context"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/identity"
)

// A HolderState is what a holder says of itself with a heartbeat.
type HolderState struct {
	Claim   driver.ID `json:"claim"` // of the heartbeat, as is Seq
	Seq     uint64    `json:"seq"`
	Phase   string    `json:"phase"` // the name of a Phase; a later build may have others
	Since   time.Time `json:"since"` // of the phase, by the holder's clock
	Reason  string    `json:"reason"`
	Serving bool      `json:"serving"`
	Busy    string    `json:"busy,omitempty"` // what the work says is under way; empty: nothing
	Lease   float64   `json:"lease_seconds"`  // of its configuration; it beats three times in a lease

	// Process is the identity of the holder's process, by which another process of
	// its host knows of its end. It is empty if the system tells none.
	Process string `json:"process,omitempty"`

	// Acknowledges says that the holder answers at once if it is asked to hand over.
	// A build that does not says nothing until its work has ended.
	Acknowledges bool `json:"acknowledges,omitempty"`
}

// State returns what the holder said of itself with this heartbeat. A build that does
// not know the field keeps it as it finds it, so that it may be left from an earlier
// holder or heartbeat: then ok is false.
func (b Beat) State() (s HolderState, ok bool) {
	if b.Said == nil || b.Said.Claim != b.Claim || b.Said.Seq != b.Seq {
		return HolderState{}, false
	}
	return *b.Said, true
}

// Ended reports whether the holder's process is proven to have ended, and how that is
// known. Only the kernel of its own host and pid namespace knows.
func (s HolderState) Ended() (proven bool, why string) {
	p, err := identity.Parse(s.Process)
	if err != nil {
		return false, err.Error()
	}
	return p.Ended()
}

// says returns what this process says of itself with heartbeat b.
func (l *Leader) says(b Beat) *HolderState {
	s := l.Status()
	process, _ := identity.Self() // without one its end is noticed later
	return &HolderState{
		Process: process.String(), Acknowledges: true,
		Claim: b.Claim, Seq: b.Seq, Phase: s.Phase.String(), Since: s.Since.UTC().Truncate(time.Microsecond),
		Reason: cut(s.Reason, maxMemberReason), Serving: s.Serving && !b.Left, Busy: s.Busy, Lease: l.cfg.Lease.Seconds(),
	}
}

// spread is how long a change waits for its heartbeat, so that the first commits of the
// work come first.
const spread = 20 * time.Millisecond

// A surge counts the heartbeats that come before their time: a few may at once, and then
// two a second. Its zero value has counted none.
type surge struct {
	spent int
	since time.Time // when the oldest of them counts no more
}

const mostSpent = 10

// take reports whether one more may come at now, and counts it.
func (s *surge) take(now time.Time) bool {
	for ; s.spent > 0 && now.After(s.since); s.spent-- {
		s.since = s.since.Add(memberPace)
	}
	if s.spent == 0 {
		s.since = now.Add(memberPace)
	}
	if s.spent == mostSpent {
		return false
	}
	s.spent++
	return true
}

// untilNextBeat waits for d, or until this process serves, or no longer does, otherwise
// than its newest heartbeat says. If that changes all the time, or if it is busy with
// something else, a heartbeat says so within a second. It reports false if ctx ends
// before. A holder that pauses leaves the store to its successor.
func (t *leadership) untilNextBeat(ctx context.Context, d time.Duration) bool {
	next, soon := time.NewTimer(d), time.Now().Add(memberPace)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			return true
		case <-t.changed:
			s, said := t.Status(), t.said.Load()
			turned := said == nil || s.Serving != said.Serving
			switch {
			case s.Phase == HandingOver:
			case turned && t.surge.take(time.Now()):
				return elapse(ctx, spread)
			case (turned || s.Busy != said.Busy) && time.Until(soon) < d:
				next.Reset(time.Until(soon))
			}
		case <-ctx.Done():
			return false
		}
	}
}

// change says that something about this process may have changed.
func (l *Leader) change() {
	select {
	case l.changed <- struct{}{}:
	default: // nobody has looked since the change before
	}
}

// A StandingState says in one word who leads and serves. Its text form is stable.
type StandingState string

// The states of a Standing.
const (
	StandingUnclaimed  StandingState = "unclaimed"   // nobody ever claimed the catalog
	StandingServing    StandingState = "serving"     // a process holds the token and says that it serves
	StandingNotServing StandingState = "not serving" // one holds it, and says that it doesn't serve
	StandingClaimed    StandingState = "claimed"     // the token was claimed; whether its process serves is not known
	StandingSilent     StandingState = "silent"      // the holder's newest heartbeat is older than its lease
	StandingLeft       StandingState = "left"        // its holder has ended, or offers it
)

// A Standing is who leads and serves, as far as head and heartbeat show it.
type Standing struct {
	State  StandingState
	Token  fence.Token
	Holder fence.Holder
	Since  time.Time // of the state, by the clock of whoever said so; zero if nobody did
	Why    string    // what the state rests on

	Beaten bool          // there is a heartbeat of the claim
	Age    time.Duration // of that heartbeat, by the reader's clock
	Lease  time.Duration // of the holder; zero if it does not say
}

// StandingOf judges a head and a heartbeat at now, which is the reader's clock: a reader
// that has seen the heartbeat's Seq grow meanwhile gives the time at which the heartbeat
// was written.
func StandingOf(head driver.Head, b Beat, now time.Time) Standing {
	claim := head.Claim
	s := Standing{Token: claim.Token, Holder: claim.Holder, Since: claim.Holder.Since}
	if head.IsZero() {
		s.State, s.Why = StandingUnclaimed, "nobody ever claimed this catalog"
		return s
	}
	if b.At.IsZero() || b.Claim != claim.ID {
		s.State, s.Why = StandingClaimed, "there is no heartbeat of this claim"
		return s
	}
	said, says := b.State()
	s.Beaten, s.Age = true, now.Sub(b.At)
	s.Lease = time.Duration(min(max(said.Lease, 0), time.Hour.Seconds()) * float64(time.Second))
	patience := s.Lease
	if patience == 0 {
		patience = Config{}.withDefaults().Lease
	}
	switch {
	case b.Left && says:
		s.State, s.Since, s.Why = StandingLeft, b.At, "its holder has given it back"
	case b.Left: // older builds offered the token by the same word
		s.State, s.Since, s.Why = StandingLeft, b.At, "its holder has given it back, or offers it to a standby"
	case s.Age > patience:
		s.State, s.Since = StandingSilent, b.At
		s.Why = fmt.Sprintf("the newest heartbeat is %v old by this clock, and a lease is %v", s.Age.Round(time.Second), patience)
	case !says:
		s.State, s.Why = StandingClaimed, "the holder's build does not say whether it serves"
	case said.Serving:
		s.State, s.Since, s.Why = StandingServing, said.Since, "the holder says so with its heartbeat"
	default:
		s.State, s.Since = StandingNotServing, said.Since
		s.Why = exitcodes.OneLine(said.Phase + ": " + said.Reason)
	}
	return s
}
