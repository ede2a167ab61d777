//go:build unix

package lead_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// keeperOf is the process id of the keeper of l; 0 where there is none.
func keeperOf(l *lead) (pid int) {
	lists, _ := filepath.Glob("/proc/" + strconv.Itoa(l.cmd.Process.Pid) + "/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, child := range strings.Fields(string(text)) {
			line, _ := os.ReadFile("/proc/" + child + "/cmdline")
			if strings.Contains(string(line), "lead-keeper") {
				pid, _ = strconv.Atoi(child)
			}
		}
	}
	return pid
}
