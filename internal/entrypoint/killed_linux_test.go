package entrypoint

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSIGKILLOfRunTakesItsServerAlong(t *testing.T) {
	t.Parallel()
	r := begin(t, Config{}, "exit=166", "deaf") // as behind a restart
	r.happens("child ready", 1)
	server := 0
	for line := range strings.Lines(r.read(r.events)) {
		if pid, ok := strings.CutPrefix(strings.TrimSpace(line), "child ready "); ok {
			var err error
			server, err = strconv.Atoi(pid)
			require.NoError(t, err)
		}
	}
	require.NoError(t, syscall.Kill(server, 0))
	r.signal(syscall.SIGKILL)
	require.Eventually(t, func() bool { return gone(server) }, time.Minute, time.Millisecond)
}

// gone reports whether a process has ended, whether or not somebody has reaped it.
func gone(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, after, _ := strings.Cut(string(stat), ") ")
	return err != nil || strings.HasPrefix(after, "Z")
}
