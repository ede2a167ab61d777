package kvserver_test

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/internal/storeurl"
)

func TestAServerThatIsFencedByEpochEndsWith166AndComesBackAsStandby(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		s := start(t, url, "-generation", "1").leads()
		store, err := storeurl.Open(t.Context(), url, storeurl.Config{Getenv: os.Getenv, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer func() { require.NoError(t, store.Close()) }()
		_, err = catalog.Raise(t.Context(), store, catalog.Config{}, catalog.RaiseOptions{Reason: "to see how it ends"})
		require.NoError(t, err)
		require.Equal(t, 166, s.exitCode())
		again := start(t, url, "-generation", "1")
		require.NotContains(t, again.cli("INFO", "fencepost"), "fencepost_phase:leading\r\n", "it claimed at once")
		again.leads() // after it heard no sign of life
		history, err := catalog.History(t.Context(), store)
		require.NoError(t, err)
		require.Len(t, history, 3)
	})
}

func TestAServerWhoseFileIsReplacedEndsWith2AndItsStacks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	s := start(t, "sqlite:"+path, "-generation", "1").leads()
	require.Equal(t, "OK", s.cli("SET", "k", "v"))
	require.NoError(t, os.Rename(path, path+".moved"))
	require.Equal(t, 2, s.exitCode())
	require.Contains(t, s.log.String(), "goroutine ")
}

func TestAWrongCommandLineOrConfigurationEndsTheProgram(t *testing.T) {
	for want, args := range map[int][]string{
		64: {"-nonsense"},
		78: {"-store", "sqlite:" + t.TempDir(), "-generation", "1", "-listen", "127.0.0.1:0"},
	} {
		cmd := exec.Command(os.Getenv(binaryEnv), args...)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "%s", out)
		require.Equal(t, want, exit.ExitCode(), "%s", out)
	}
}

// TestAStopDuringCommitsLeavesNoDoubtAboutThem stops the program while many
// clients write. Whatever was acknowledged is there afterwards, and whatever was
// refused is not; only a write whose client heard nothing may be either.
func TestAStopDuringCommitsLeavesNoDoubtAboutThem(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		const clients = 16
		s := start(t, url, "-generation", "1").leads()
		var acked, unheard atomic.Int64
		var wg sync.WaitGroup
		writing := make(chan struct{}, clients)
		for range clients {
			wg.Go(func() {
				c := redis.NewClient(&redis.Options{Addr: s.address, MaxRetries: -1})
				defer c.Close()
				for n := 0; ; n++ {
					err := c.Incr(t.Context(), "counter").Err()
					var refused redis.Error
					switch {
					case err == nil:
						acked.Add(1)
					case errors.As(err, &refused) && !strings.Contains(err.Error(), "unknown"):
						return
					default:
						if !errors.Is(err, syscall.ECONNREFUSED) {
							unheard.Add(1)
						}
						return
					}
					if n == 10 {
						writing <- struct{}{}
					}
				}
			})
		}
		for range clients {
			<-writing
		}
		require.Equal(t, 0, s.stop())
		wg.Wait()
		next := start(t, url, "-generation", "2", "-auto-promote").leads()
		counter, err := strconv.ParseInt(next.cli("GET", "counter"), 10, 64)
		require.NoError(t, err)
		t.Logf("%d acknowledged, %d unheard, %d in the store", acked.Load(), unheard.Load(), counter)
		require.GreaterOrEqual(t, counter, acked.Load())
		require.LessOrEqual(t, counter, acked.Load()+unheard.Load())
	})
}
