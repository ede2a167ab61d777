// Package pace keeps a log short that would say the same again and again, as
// during an outage: at once, then with growing distance, with the number of times
// that were left out.
package pace

import "time"

// The distances between two lines: each is twice the one before.
const (
	first   = time.Second
	longest = 5 * time.Minute
)

// A Pace is about one thing that can fail. The zero Pace is ready for use, by one
// goroutine at a time.
type Pace struct {
	failing  bool
	since    time.Time     // of the first failure
	last     time.Time     // when it was logged
	distance time.Duration // to the next line
	left     int           // failures that were left out since then
}

// Fail counts a failure at now. It reports whether that is to be logged, and then
// how many were left out since the last line.
func (p *Pace) Fail(now time.Time) (left int, due bool) {
	if !p.failing {
		*p = Pace{failing: true, since: now, last: now, distance: first}
		return 0, true
	}
	if now.Sub(p.last) < p.distance {
		p.left++
		return 0, false
	}
	left, p.left = p.left, 0
	p.last, p.distance = now, min(2*p.distance, longest)
	return left, true
}

// Succeed notes that it works again: the next failure is logged at once. It
// returns how long it had failed, and whether it had.
func (p *Pace) Succeed(now time.Time) (lasted time.Duration, failed bool) {
	if !p.failing {
		return 0, false
	}
	lasted = now.Sub(p.since)
	*p = Pace{}
	return lasted, true
}
