package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// raisedState says that a tool has raised the token, and that no process holds it.
const raisedState leader.StandingState = "raised"

// endedState says that the process that holds the token has ended, and that nobody has
// claimed since.
const endedState leader.StandingState = "ended"

// What a verdict rests on.
const (
	byAnswer    = "answer"    // the holder's process has just answered
	byHeartbeat = "heartbeat" // one came while this command looked
	byDate      = "date"      // of the newest heartbeat, and this clock
	byKernel    = "kernel"    // of this host, which says that the holder's process has ended
	byHead      = "head"      // which says who claimed, and nothing of what came then
)

// A verdict is who leads and serves, or that nobody does, and why.
type verdict struct {
	State    leader.StandingState `json:"state"`
	Text     string               `json:"text"`
	Since    *time.Time           `json:"since"` // by the clock of whoever said so
	Why      string               `json:"why"`
	Busy     string               `json:"busy"`     // what the work of the process that leads has under way; empty: nothing, as far as it says
	Evidence string               `json:"evidence"` // answer, heartbeat, date, kernel or head
	May      string               `json:"may"`      // who could lead; empty while somebody does
}

// A look is what the store says of who leads, and what the holder says of itself.
type look struct {
	at       time.Time // when it began
	head     driver.Head
	beat     leader.Beat
	intent   leader.Intent
	members  leader.MemberList
	answered map[string]bool // the members that answered just now, by ID
	raised   bool            // the newest claim is a tool's, which no process holds
	heard    bool            // a heartbeat of the claim came while this command looked
}

// holder returns the member that answered just now that it holds the newest token.
func (l look) holder() (m leader.Member, ok bool) {
	for _, m := range l.members.Members {
		if l.answered[m.ID] && m.Token != nil && *m.Token == l.head.Claim.Token {
			return m, true
		}
	}
	return m, false
}

// verdict judges what was seen.
func (l look) verdict(now time.Time) verdict {
	s, evidence := l.standing(now)
	v := verdict{State: s.State, Why: s.Why, Evidence: evidence}
	if !s.Since.IsZero() {
		v.Since = &s.Since
	}
	who := holder(s.Holder)
	since := "since " + when(s.Since, now)
	switch s.State {
	case leader.StandingServing:
		v.Text = fmt.Sprintf("%s leads and serves as %v, %s", who, s.Token, since)
	case leader.StandingNotServing:
		v.Text = fmt.Sprintf("%s leads as %v and does not serve, %s: %s", who, s.Token, since, s.Why)
	case leader.StandingClaimed:
		v.Text = fmt.Sprintf("%s claimed %v, %s; whether it serves is not known: %s", who, s.Token, since, s.Why)
	case leader.StandingSilent:
		v.Text = fmt.Sprintf("nobody is known to lead: nothing was heard of %s, which claimed %v, %s: %s", who, s.Token, since, s.Why)
	case leader.StandingLeft:
		v.Text = fmt.Sprintf("nobody leads, %s: %v was claimed by %s: %s", since, s.Token, who, s.Why)
	case endedState:
		v.Text = fmt.Sprintf("nobody leads: the process of %s, which claimed %v, has ended: %s; its newest heartbeat: %s", who, s.Token, s.Why, when(s.Since, now))
	case raisedState:
		v.Text = fmt.Sprintf("nobody leads, %s: %v was raised by %s, and no process holds it: %s", since, s.Token, who, s.Why)
	default:
		v.Text = "nobody leads: " + s.Why
	}
	if leads(s.State) {
		v.Text += restsOn(evidence, s.Age)
	}
	if v.Busy = l.busyWith(s); v.Busy != "" {
		v.Text += "; busy with " + v.Busy
	}
	v.Text = cell(v.Text)
	if !leads(s.State) {
		v.May = cell(l.may())
	}
	return v
}

// busyWith says what the process that leads has under way; empty: nothing, as far as it
// says with its newest heartbeat.
func (l look) busyWith(s leader.Standing) string {
	said, ok := l.beat.State()
	if !leads(s.State) || !ok || said.Claim != l.head.Claim.ID {
		return ""
	}
	return said.Busy
}

// restsOn says how it is known that a process leads; nothing if only the head says so.
func restsOn(evidence string, beaten time.Duration) string {
	switch evidence {
	case byAnswer:
		return "; it has answered just now"
	case byHeartbeat:
		return "; a heartbeat came just now"
	case byDate:
		return "; its newest heartbeat: " + age(beaten) + " by this clock"
	}
	return ""
}

// standing returns who leads, by the best that is known of the holder.
func (l look) standing(now time.Time) (leader.Standing, string) {
	claim := l.head.Claim
	if l.raised {
		return leader.Standing{State: raisedState, Token: claim.Token, Holder: claim.Holder, Since: claim.Holder.Since, Why: claim.Reason}, byHead
	}
	if m, ok := l.holder(); ok {
		s := leader.Standing{Token: claim.Token, Holder: claim.Holder, Since: m.Since, State: leader.StandingServing, Why: "the holder says so"}
		if !m.Serving {
			s.State, s.Why = leader.StandingNotServing, m.Phase+": "+m.Reason
		}
		return s, byAnswer
	}
	if said, ok := l.beat.State(); ok && said.Claim == claim.ID && !l.beat.Left {
		if proven, how := said.Ended(); proven {
			return leader.Standing{State: endedState, Token: claim.Token, Holder: claim.Holder, Since: l.beat.At, Why: how}, byKernel
		}
	}
	if l.heard {
		return leader.StandingOf(l.head, l.beat, l.beat.At), byHeartbeat
	}
	s := leader.StandingOf(l.head, l.beat, now)
	if s.Beaten {
		return s, byDate
	}
	return s, byHead
}

// leads reports whether a process holds the token, as far as is known.
func leads(s leader.StandingState) bool {
	return s == leader.StandingServing || s == leader.StandingNotServing || s == leader.StandingClaimed
}

// known reports whether a process is known to lead, and not only to have claimed.
func (v verdict) known() bool { return leads(v.State) && v.Evidence != byHead }

// may says who could claim while nobody leads.
func (l look) may() string {
	leading, promoted := l.head.Claim.Token.Generation, l.intent.Generation
	ready, above := 0, generation.None
	for _, m := range l.members.Members {
		switch g := m.Generation; {
		case !m.Ready:
		case slices.Contains(l.intent.Aborted, g) && g > leading:
		case g == leading && !l.head.IsZero(), g == promoted && g > leading:
			ready++
		case g > leading:
			above = max(above, g)
		}
	}
	switch {
	case ready > 0:
		return fmt.Sprintf("%s ready, and may claim", processes(ready))
	case l.head.IsZero():
		return "the first process that starts claims"
	case above != generation.None:
		return fmt.Sprintf("nobody may: no process of generation %v is ready, and generation %v, which is, was not promoted: fencepost promote --generation %v", max(leading, promoted), above, above)
	case promoted > leading:
		return fmt.Sprintf("nobody may: no process of generation %v, which is promoted, or of %v is ready: start one", promoted, leading)
	}
	return fmt.Sprintf("nobody may: no process of generation %v is ready: start one", leading)
}

func processes(n int) string {
	if n == 1 {
		return "1 process is"
	}
	return fmt.Sprintf("%d processes are", n)
}

// An expectation is what a script asks: serving, claimed, or nothing.
type expectation string

const (
	expectServing expectation = "serving"
	expectClaimed expectation = "claimed"
)

func (e expectation) check() error {
	if e != "" && e != expectServing && e != expectClaimed {
		return fmt.Errorf("--expect is %q, want %s or %s", e, expectServing, expectClaimed)
	}
	return nil
}

// An expected is the answer to an expectation, in JSON.
type expected struct {
	Expect expectation `json:"expect"`
	Met    bool        `json:"met"`
	Why    string      `json:"why"`

	Unknown bool `json:"unknown"` // the time was over before it could be known
}

// judge says whether what was seen is as expected; known is false while a heartbeat could
// still show it. Only what a living process says is believed: a date is no evidence.
func (e expectation) judge(l look, now time.Time) (x expected, known bool) {
	s, evidence := l.standing(now)
	x = expected{Expect: e, Why: s.Why}
	alive := evidence == byAnswer || evidence == byHeartbeat
	switch s.State {
	case leader.StandingUnclaimed, leader.StandingLeft, raisedState, endedState:
		return x, true
	case leader.StandingServing:
		x.Met = alive
	case leader.StandingNotServing, leader.StandingClaimed:
		x.Met = alive && e == expectClaimed
	}
	return x, alive
}

// lookEvery is how often the store is asked while a heartbeat is waited for.
const lookEvery = 100 * time.Millisecond

// await looks until it is known whether what is expected is so, or no heartbeat came
// for longer than a lease, or the time is over.
func (e expectation) await(ctx context.Context, store driver.Store, cfg catalog.Config, first look, limit time.Duration) (look, expected, error) {
	l, began := first, first.at
	for {
		x, known := e.judge(l, time.Now())
		if known {
			return l, x, nil
		}
		s, _ := l.standing(time.Now())
		silence := cmp.Or(s.Lease, defaultLease) * 21 / 20
		if waited := time.Since(began); waited >= silence || time.Since(first.at) >= limit {
			x.Why = fmt.Sprintf("no heartbeat of %v came while this command looked, for %v, and %v without one are silence", s.Token, waited.Round(time.Millisecond), silence)
			x.Unknown = waited < silence
			return l, x, nil
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return l, x, err
		}
		next, err := readLook(ctx, store, cfg)
		if err != nil {
			return l, x, err
		}
		next.heard = l.follows(next)
		if next.head.Claim.ID != l.head.Claim.ID { // another claim: its lease is to be waited for
			began = next.at
		}
		l = next
	}
}

// follows reports whether next has a heartbeat that was written since l was read.
func (l look) follows(next look) bool {
	return next.beat.Claim == next.head.Claim.ID && next.beat.Seq > 0 &&
		(l.heard && l.beat.Claim == next.beat.Claim || l.beat.Claim != next.beat.Claim || l.beat.Seq != next.beat.Seq)
}

// defaultLease is the lease of a holder that does not say its own.
const defaultLease = 7500 * time.Millisecond

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
