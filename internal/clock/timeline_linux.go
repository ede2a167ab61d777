package clock

import (
	"os"
	"strings"
)

// Timeline names what the readings of [Boot] are by, so that those of two processes
// can be compared if theirs is the same: this boot of this host, and a namespace of
// time. It is empty if the system does not say.
func Timeline() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	space, err := os.Readlink("/proc/self/ns/time")
	if err != nil && !os.IsNotExist(err) {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + space
}
