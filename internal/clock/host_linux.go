package clock

import (
	"os"
	"strings"
)

// Host names this boot of this host, and the network in which its loopback
// addresses lie. It is empty where the system does not say.
func Host() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	network, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + network
}
