package work

import (
	"fmt"
	"strconv"
	"time"
)

// An Alert is one condition of a catalog's work that asks for a person, whether it
// holds now or not.
type Alert struct {
	// Key names the condition: the same one at every check, such as work/stale/sync for
	// the kind sync. A pager that gets a key with Firing = false closes what it opened
	// under that key.
	Key    string `json:"key"`
	Firing bool   `json:"firing"`

	// Value is what was compared with Limit: seconds, or a number of things. Zero, and
	// not absent, if there is nothing to compare. Limit is negative if the condition
	// never fires.
	Value float64 `json:"value"`
	Limit float64 `json:"limit"`

	Since   time.Time `json:"since,omitzero"` // when the condition began to hold, if that is known
	Summary string    `json:"summary"`        // one line
	Remedy  string    `json:"remedy,omitempty"`
}

// State returns "firing" or "resolved".
func (a Alert) State() string {
	if a.Firing {
		return "firing"
	}
	return "resolved"
}

// Outside is what a Status does not say: what stands on the catalog's board.
type Outside struct {
	Requests int       `json:"requests"`             // that wait in the inbox
	Oldest   time.Time `json:"oldest,omitzero"`      // since when the oldest of them does
	Unread   int       `json:"unreadable,omitempty"` // requests that can't be read

	// Seen is the last sign of life of the holder of Status.Token. Zero: it gives none, so
	// nothing follows from silence.
	Seen time.Time `json:"holder_seen,omitzero"`
}

// Check returns every alert: for each kind that ever had a job or a holder, and then
// those of the catalog as a whole, in an order that does not change. It decides by its
// arguments alone. A condition fires once it has held for longer than its limit:
//
//	work/stale/KIND     a job waits, retries or was interrupted; since it was first due
//	work/slow/KIND      a job runs
//	work/blocked/KIND   a job waits behind another one of its key; since it was first due
//	work/unknown/KIND   a job is of a kind that the holder does not run; likewise
//	work/stranded/KIND  a job is pinned to an owner that does not hold the token; likewise
//	work/orphans/KIND   nobody takes a job whose holder ended
//	work/dead/KIND      jobs are on the dead list; until they are retried or cleared
//	work/holder         jobs are due, and no holder runs them
//	work/inbox          nobody takes a request
//	work/broken         entries can't be read
//	work/sums           the figures of the status contradict each other
//
// No job of a negative priority fires anything, nor does one that is not due yet. A job
// that runs fires nothing but work/slow, unless its holder is silent: then it does not
// run.
func Check(st Status, out Outside, th Thresholds) []Alert {
	c := checking{Status: st, out: out, th: th.withDefaults()}
	for _, k := range st.Kinds {
		c.kind(k)
	}
	c.holder()
	c.inbox()
	c.broken()
	c.sums()
	return c.alerts
}

// Firing returns those that fire.
func Firing(alerts []Alert) (firing []Alert) {
	for _, a := range alerts {
		if a.Firing {
			firing = append(firing, a)
		}
	}
	return firing
}

// A checking is one call of Check.
type checking struct {
	Status
	out    Outside
	th     Thresholds
	alerts []Alert
}

// lasts adds an alert that fires if something has lasted for longer than its limit. A
// zero from means that there is nothing.
func (c *checking) lasts(key string, from time.Time, limit time.Duration, summary, remedy, otherwise string) {
	a := Alert{Key: key, Limit: limit.Seconds(), Summary: otherwise}
	if limit < 0 {
		a.Limit = -1
	}
	if age := c.At.Sub(from); !from.IsZero() && age > 0 {
		a.Value = age.Seconds()
		a.Firing = limit >= 0 && age > limit
	}
	if a.Firing {
		a.Since, a.Summary, a.Remedy = from.Add(limit), summary, remedy
	}
	c.alerts = append(c.alerts, a)
}

// counts adds an alert that fires if there are more than limit.
func (c *checking) counts(key string, n, limit int, since time.Time, summary, remedy, otherwise string) {
	a := Alert{Key: key, Value: float64(n), Limit: float64(limit), Summary: otherwise}
	if limit >= 0 && n > limit {
		a.Firing, a.Since, a.Summary, a.Remedy = true, since, summary, remedy
	}
	c.alerts = append(c.alerts, a)
}

// silent returns the holder's last sign of life, and whether that is too old.
func (c *checking) silent() (since time.Time, silent bool) {
	return c.out.Seen, !c.out.Seen.IsZero() && c.th.Silent >= 0 && c.At.Sub(c.out.Seen) > c.th.Silent
}

// seconds shows a duration to a person.
func seconds(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + seconds(-d)
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 2*time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	default:
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
}

// describe names a job, with what is wrong with it.
func describe(i *Info) string {
	if i == nil {
		return ""
	}
	text := fmt.Sprintf("job %d", i.ID)
	if i.Key != "" {
		text += fmt.Sprintf(" (key %q)", clip(i.Key, shownKey))
	}
	if i.Attempt > 0 {
		text += fmt.Sprintf(", attempt %d", i.Attempt)
	}
	if i.Interrupted > 0 {
		text += fmt.Sprintf(", interrupted %d times", i.Interrupted)
	}
	if i.Error != "" {
		text += fmt.Sprintf(", %q", clip(i.Error, shownError))
	}
	return text
}

// How much of what applications wrote is shown in one line.
const (
	shownKey   = 64
	shownError = 200
)
