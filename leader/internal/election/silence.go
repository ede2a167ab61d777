package election

import (
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
)

// A source is whose signs of life are counted.
type source struct {
	claim      driver.ID
	generation generation.Generation
}

// silence measures for how long a source has given no sign of life. It counts
// only the time between two looks that both could read the store.
type silence struct {
	of     source
	seq    uint64
	mark   time.Duration // up to when silence was counted
	looked bool          // the look before could read
	length time.Duration
}

// observe takes what one look has found and returns the silence so far. The sign
// of life that it saw may have been given up to the answer; that there was no
// further one is known up to when a later look was sent. Of the time since the
// look before it counts no more than most.
func (s *silence) observe(b Board, of source, seq uint64, most time.Duration) time.Duration {
	switch {
	case !s.looked || s.of != of || s.seq != seq:
		*s = silence{of: of, seq: seq, mark: b.Answered, looked: true}
	case b.Sent > s.mark:
		s.length += min(b.Sent-s.mark, most)
		s.mark = b.Sent
	}
	return s.length
}

// blind notes that a look could not read the store: counting begins anew.
func (s *silence) blind() { s.looked, s.length = false, 0 }

// delay postpones a claim that others have the first right to.
type delay struct {
	claim   driver.ID // over which the claim is due
	since   time.Duration
	waiting bool
}

// over reports whether the reason to claim over claim has stood for long enough.
func (d *delay) over(now time.Duration, claim driver.ID, long time.Duration) bool {
	if !d.waiting || d.claim != claim {
		d.claim, d.since, d.waiting = claim, now, true
	}
	return now-d.since >= long
}

func (d *delay) reset() { d.waiting = false }
