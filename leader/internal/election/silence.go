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
// only the time between two looks in a row that both could read the store.
type silence struct {
	of     source
	seq    uint64
	mark   time.Duration // up to when silence was counted
	known  bool          // some look could read
	blank  time.Duration // the last look that could not, if no later one could; 0: none
	length time.Duration
}

// observe takes what one look has found and returns the silence so far. The sign
// of life that it saw may have been given up to the answer; that there was no
// further one is known up to when a later look was sent. Of the time since the
// look before it counts no more than most, and nothing if that look could not
// read.
func (s *silence) observe(b Board, of source, seq uint64, most time.Duration) time.Duration {
	switch {
	case !s.known || s.of != of || s.seq != seq:
		*s = silence{of: of, seq: seq, mark: b.Answered, known: true}
	case s.blank > 0:
		if b.Sent >= s.blank {
			s.mark, s.blank = b.Answered, 0
		}
	case b.Sent > s.mark:
		s.length += min(b.Sent-s.mark, most)
		s.mark = b.Sent
	}
	return s.length
}

// blind notes that a look could not read the store. What was counted stays: a
// store that fails now and then would otherwise keep a dead holder for ever.
func (s *silence) blind(now time.Duration) { s.blank = now }

// delay postpones a claim that others have the first right to. It counts only the
// time between two looks in a row that both could read the store: in any other the
// others could not claim either.
type delay struct {
	claim  driver.ID // over which the claim is due
	mark   time.Duration
	length time.Duration
	runs   bool // the look before found a reason to claim
	found  bool // this look did
	blank  bool // a look could not read
}

// next begins a look. The delay ends if the look before found no reason to claim.
func (d *delay) next() { d.runs, d.found = d.runs && d.found, false }

// over reports whether the reason to claim over claim has stood for long enough.
func (d *delay) over(now time.Duration, claim driver.ID, long time.Duration) bool {
	switch {
	case !d.runs || d.claim != claim:
		*d = delay{claim: claim, runs: true}
	case !d.blank:
		d.length += now - d.mark
	}
	d.mark, d.found, d.blank = now, true, false
	return d.length >= long
}

// blind notes that a look could not read the store.
func (d *delay) blind() { d.blank = true }
