//go:build !linux

package clock

import "time"

// Boot is [Monotonic] where the system has no clock that is known to go on
// while the host is suspended.
func Boot() time.Duration { return Monotonic() }
