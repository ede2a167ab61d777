package work

import (
	"errors"
	"fmt"
)

// ErrSums means that the figures of a Status contradict each other: the catalog was
// changed by hand, or this package has a defect.
var ErrSums = errors.New("work: the figures of the status do not add up")

// Sums checks every identity that holds between the figures of a Status. Its error
// wraps [ErrSums] and has each one that does not, with both values. What
// can't be read says nothing of its kind and its claim, so fewer identities are checked
// then.
func (s Status) Sums() error {
	c := &sums{}
	all := KindStatus{
		Name: "all", Live: s.Live, States: s.States, Suspended: s.Suspended, Dead: s.Dead, Totals: s.Totals, Since: s.Since,
	}
	lost := s.Unreadable
	c.kind(all, lost)
	sum := KindStatus{States: map[State]int{}}
	for _, k := range s.Kinds {
		if lost["jobs"]+lost["dead"] == 0 { // else nobody knows whose they are
			c.kind(k, lost)
		}
		sum.Live, sum.Suspended, sum.Dead = sum.Live+k.Live, sum.Suspended+k.Suspended, sum.Dead+k.Dead
		sum.Totals, sum.Since = sum.Totals.plus(k.Totals), sum.Since.plus(k.Since)
		for state, n := range k.States {
			sum.States[state] += n
		}
		c.equal("dead, urgent", k.Name, k.UrgentDead, min(k.UrgentDead, k.Dead))
	}
	sum.Live += lost["jobs"]
	sum.States[Broken] += lost["jobs"]
	c.equal("live", "all, and the kinds", s.Live, sum.Live)
	c.equal("suspended", "all, and the kinds", s.Suspended, sum.Suspended)
	c.equal("dead", "all, and the kinds", s.Dead, sum.Dead)
	for _, state := range States() {
		c.equal(string(state), "all, and the kinds", s.States[state], sum.States[state])
	}
	c.same("totals", s.Totals, sum.Totals)
	c.same("totals since open", s.Since, sum.Since)
	for _, t := range s.Takeovers {
		c.equal("recovered of the orphans", "takeover "+t.Token.String(), t.Recovered, min(t.Recovered, t.Orphans))
	}
	return errors.Join(c.wrong...)
}

// sums gathers what does not add up.
type sums struct{ wrong []error }

func (c *sums) equal(what, of string, a, b int) {
	if a != b {
		c.wrong = append(c.wrong, fmt.Errorf("%w: %s of %s: %d and %d", ErrSums, what, of, a, b))
	}
}

func (c *sums) same(what string, a, b Totals) {
	if a != b {
		c.wrong = append(c.wrong, fmt.Errorf("%w: %s: %+v and %+v", ErrSums, what, a, b))
	}
}

// kind checks the figures of one kind, or of all.
func (c *sums) kind(k KindStatus, unreadable map[string]int) {
	live := 0
	for _, n := range k.States {
		live += n
	}
	c.equal("states and live", k.Name, live, k.Live)
	for _, t := range []Totals{k.Totals, k.Since} {
		c.equal("smallest total", k.Name, 0, int(min(0, t.least())))
	}
	if unreadable["totals"]+unreadable["opened"] > 0 {
		return
	}
	c.equal("live by the totals, and by the states", k.Name, int(k.Totals.Live()), k.Live)
	c.equal("dead by the totals, and by the list", k.Name, int(k.Totals.Dead()), k.Dead+unreadable["dead"])
	if unreadable["jobs"]+unreadable["runs"] == 0 {
		claimed := k.States[Running] + k.States[Orphan] + k.Suspended
		c.equal("claimed by the totals, and running + orphan + suspended", k.Name, int(k.Totals.Claimed()), claimed)
	}
}
