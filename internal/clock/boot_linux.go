package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Boot reads the boot-time clock, which goes on while the host is suspended. It
// costs a system call.
func Boot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock: no boot-time clock: " + err.Error()) // Linux has one since 2.6.39
	}
	return time.Duration(ts.Nano())
}
