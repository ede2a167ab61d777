package kvserver_test

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/internal/storeurl"
)

// supervise starts kvserver under `fencepost run`, and ends both with the test.
func supervise(t *testing.T, store string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(filepath.Dir(os.Getenv(binaryEnv)), "fencepost"), "run", "--stop-grace", "5s", "--",
		os.Getenv(binaryEnv), "-listen", "127.0.0.1:0", "-generation", "1")
	cmd.Env = append(os.Environ(), "FENCEPOST_STORE="+store)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()
	})
}

// TestTwoProcessesOfOneGenerationThatRestartAfterAnEpochFenceDoNotDuel fences
// whoever leads, twice, and counts the claims. Each of them follows the fence at
// once, because the board says that nobody holds the raised token.
func TestTwoProcessesOfOneGenerationThatRestartAfterAnEpochFenceDoNotDuel(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		store, err := storeurl.Open(t.Context(), url, storeurl.Config{Getenv: os.Getenv, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer func() { require.NoError(t, store.Close()) }()
		claims := func() int {
			history, err := catalog.History(t.Context(), store)
			require.NoError(t, err)
			return len(history)
		}
		fence := func() {
			cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(os.Getenv(binaryEnv)), "fencepost"), "fence", "--reason", "to see whether they duel")
			cmd.Env = append(os.Environ(), "FENCEPOST_STORE="+url)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
		}
		reach := func(n int) {
			require.Eventually(t, func() bool { return claims() == n }, patience, 50*time.Millisecond, "claims: want %d", n)
		}
		supervise(t, url)
		supervise(t, url)
		reach(1)
		for n := 1; n <= 3; n += 2 {
			fence()
			reach(n + 2) // one of the two
			history, err := catalog.History(t.Context(), store)
			require.NoError(t, err)
			require.Regexp(t, `^nobody holds `+history[n].Token.String()+`, which was raised by fencepost fence by `, history[n+1].Reason)
		}
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for end := time.After(12 * time.Second); ; {
			select {
			case <-tick.C:
				require.Equal(t, 5, claims(), "a claim that nobody asked for")
			case <-end:
				return
			}
		}
	})
}
