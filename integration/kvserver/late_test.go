package kvserver_test

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

// An old process that is started again and again, such as by a supervisor that
// knows no better, is told the same each time, and is no reason to wake anyone.
func TestAnOldProcessThatIsStartedLateEndsWithZeroEachTimeAndLogsNoError(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, store string) {
		start(t, store, "-generation", "2", "-auto-promote").leads()
		for range 10 {
			record := filepath.Join(t.TempDir(), "ended")
			cmd := exec.Command(os.Getenv(binaryEnv), "-listen", "127.0.0.1:0", "-generation", "1")
			cmd.Env = append(os.Environ(), "FENCEPOST_STORE="+store, exitcodes.TerminationLogEnv+"="+record)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.NotContains(t, string(out), "ERROR")
			require.NotContains(t, string(out), "WARN")
			text, err := os.ReadFile(record)
			require.NoError(t, err)
			var ended exitcodes.Record
			require.NoError(t, json.Unmarshal(text, &ended))
			require.Equal(t, exitcodes.Code(0), ended.Code)
			require.Equal(t, exitcodes.GracefulExit.String(), ended.Disposition)
		}
	})
}

func TestAnOldProcessThatIsStartedLateUnderTheEntrypointIsNeverRestarted(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, store string) {
		start(t, store, "-generation", "2", "-auto-promote").leads()
		reserved, err := net.Listen("tcp", "127.0.0.2:0") // where no other test, and no client, takes a port
		require.NoError(t, err)
		admin := reserved.Addr().String()
		require.NoError(t, reserved.Close())
		var out strings.Builder
		cmd := exec.Command(filepath.Join(filepath.Dir(os.Getenv(binaryEnv)), "fencepost"), "run", "--admin", admin, "--",
			os.Getenv(binaryEnv), "-listen", "127.0.0.1:0", "-generation", "1")
		cmd.Env = append(os.Environ(), "FENCEPOST_STORE="+store)
		cmd.Stdout, cmd.Stderr = &out, &out
		require.NoError(t, cmd.Start())
		var status struct {
			Parked   bool
			Restarts int
		}
		require.Eventually(t, func() bool {
			answer, err := http.Get("http://" + admin + "/api/leader/status")
			if err != nil {
				return false
			}
			defer answer.Body.Close()
			return json.NewDecoder(answer.Body).Decode(&status) == nil && status.Parked
		}, patience, 20*time.Millisecond)
		require.Zero(t, status.Restarts)
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, cmd.Wait())
		require.Equal(t, 1, strings.Count(out.String(), "clients can connect"), out.String())
		require.NotContains(t, out.String(), "restarting")
		require.NotContains(t, out.String(), "ERROR")
	})
}
