// Package teststop stops processes for tests.
package teststop

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	waits = time.Minute // at most
	tick  = time.Millisecond
)

// Stop sends a process SIGSTOP, and returns once every thread of it stands still:
// until then one of them may still answer.
func Stop(t testing.TB, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	Await(t, pid)
}

// Await waits until every thread of a process stands still.
func Await(t testing.TB, pid int) {
	t.Helper()
	require.Eventually(t, func() bool { return stopped(pid) }, waits, tick, "process %d goes on", pid)
}

// stopped reports whether every thread of a process stands still.
func stopped(pid int) bool {
	threads, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(stat), ") T ") {
			return false
		}
	}
	return err == nil && len(threads) > 0
}
