package entrypoint

import (
	"fmt"
	"strings"
	"time"
)

// A budget counts the halts of a sliding window. Two processes that fence each
// other are healthy in between, so that no delay that health resets bounds how
// often they do it: the budget does, which knows nothing of health.
type budget struct {
	size   int
	window time.Duration
	halts  []time.Time // of the window, the oldest first
}

// spend counts a halt, and reports whether the budget still had it.
func (b *budget) spend(at time.Time) bool {
	for len(b.halts) > 0 && at.Sub(b.halts[0]) >= b.window {
		b.halts = b.halts[1:]
	}
	b.halts = append(b.halts, at)
	return len(b.halts) <= b.size
}

// String says what was counted, for the line that says why a restart waits.
func (b *budget) String() string {
	window := b.window.String()
	if strings.HasSuffix(window, "m0s") {
		window = strings.TrimSuffix(window, "0s")
	}
	return fmt.Sprintf("%d halts within %s", len(b.halts), window)
}
