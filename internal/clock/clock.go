// Package clock measures lengths of time that no change of the wall clock
// moves.
//
// A reading is a length since some moment of the past, the same for the life of
// the process; only differences of two readings of one clock mean anything.
package clock

import "time"

// A Clock returns its reading. Its methods may be called concurrently, and
// never go back.
type Clock func() time.Duration

var start = time.Now()

// Monotonic reads the runtime's clock, without a system call. On Linux it
// stands still while the host is suspended.
func Monotonic() time.Duration { return time.Since(start) }
