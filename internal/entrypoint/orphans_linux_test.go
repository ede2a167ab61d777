package entrypoint

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

func TestAnOrphanIsAdoptedAndNoZombieRemains(t *testing.T) {
	r := begin(t, Config{}, "bury")
	r.happens("child ready", 1)
	r.happens("orphan adopted-by-"+strconv.Itoa(r.cmd.Process.Pid), 1)
	child := strings.Fields(r.read(r.events))[2]
	require.Eventually(t, func() bool {
		kin := childrenOf(t, r.cmd.Process.Pid)
		return len(kin) == 1 && kin[child] != "" && kin[child] != "Z"
	}, time.Minute, 5*time.Millisecond, "only the living child remains")
	r.signal(syscall.SIGTERM)
	r.ends(0)
}

// childrenOf returns the children of a process and their states.
func childrenOf(t *testing.T, parent int) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	kin := make(map[string]string)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			kin[filepath.Base(filepath.Dir(path))] = fields[0]
		}
	}
	return kin
}
