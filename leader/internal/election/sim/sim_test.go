package sim

import (
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	seed      = flag.Uint64("seed", 0, "plays this schedule only, and prints it")
	schedules = flag.Uint64("schedules", 20, "how many random schedules are played")
	plays     = flag.Uint64("plays", 3, "how often each play of a bound is played")
)

// Each sentence is one of docs/leading.md or of package election:
//
//   - a lower generation never claims over a higher one; one that was not promoted
//     claims only as the first of all; one that was aborted never does
//   - a claim by an offer never lands after the holder has gone back to work, and
//     no work runs while its own offer stands on the board
//   - no commit lands under another token than the newest
//   - work has ended before its term ends, and is asked to end as its lease lapses
//   - a holder that works, renews its lease and was not asked is not fenced by a
//     standby of its own generation
//   - a holder that was disturbed in vain is left alone for HandoverTimeout
//   - a death is never proven of a process that lives; no process acts without end
//   - after the last fault the highest promoted generation leads within a bound,
//     and nobody claims from then on
func TestInNoScheduleDoesAnInvariantFail(t *testing.T) {
	t.Parallel()
	first, last := uint64(1), *schedules
	if *seed != 0 {
		first, last = *seed, *seed
	}
	begun := time.Now()
	var lives, claims int
	var slowest time.Duration
	for s := first; s <= last; s++ {
		r, err := Run(s, Machines{}, *seed != 0)
		if err != nil {
			_, err = Run(s, Machines{}, true)
		}
		require.NoError(t, err)
		for _, line := range r.Trace {
			t.Log(line)
		}
		lives, claims, slowest = lives+r.Lives, claims+r.Claims, max(slowest, r.Settled)
	}
	t.Logf("%d schedules, %d lives of processes, %d claims; %.0f lives a second; the right process worked at most %v after the last fault",
		last-first+1, lives, claims, float64(lives)/time.Since(begun).Seconds(), slowest)
}
