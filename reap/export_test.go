package reap

import "time"

// WithStep returns the policy with a function that is given each state of the report.
func (p Policy) WithStep(f func(Report)) Policy {
	p.onStep = f
	return p
}

// Learned is the pause that a throttle has learned.
func (t *Throttle) Learned() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pause
}
