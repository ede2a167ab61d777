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
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/internal/storeurl"
)

func TestAServerThatIsFencedByEpochEndsWith166AndLeadsAgainOverATokenThatNobodyHolds(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, url string) {
		s := start(t, url, "-generation", "1").leads()
		store, err := storeurl.Open(t.Context(), url, storeurl.Config{Getenv: os.Getenv, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer func() { require.NoError(t, store.Close()) }()
		_, err = catalog.Raise(t.Context(), store, catalog.Config{}, catalog.RaiseOptions{Reason: "to see how it ends"})
		require.NoError(t, err)
		require.Equal(t, 166, s.exitCode())
		again := start(t, url, "-generation", "1")
		again.leads()
		history, err := catalog.History(t.Context(), store)
		require.NoError(t, err)
		require.Len(t, history, 3)
		require.Contains(t, history[2].Reason, "nobody holds g1.e2")
	})
}

func TestAServerWhoseFileIsReplacedEndsWith2AndItsStacks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "kv.db")
	s := start(t, "sqlite:"+path, "-generation", "1").leads()
	require.Equal(t, "OK", s.cli("SET", "k", "v"))
	require.NoError(t, os.Rename(path, path+".moved"))
	require.Equal(t, 2, s.exitCode())
	require.Contains(t, s.log.String(), "goroutine ")
}

func TestAWrongCommandLineOrConfigurationEndsTheProgram(t *testing.T) {
	t.Parallel()
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
// clients write, each its own counter. Whatever was acknowledged is there
// afterwards, and whatever was refused is not; the store being there, no reply
// leaves that open. Only a client that got no reply at all may find one more.
func TestAStopDuringCommitsLeavesNoDoubtAboutThem(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, url string) {
		s := start(t, url, "-generation", "1").leads()
		clients := make([]writer, 16)
		var wg sync.WaitGroup
		writing := make(chan struct{}, len(clients))
		for i := range clients {
			wg.Go(func() { clients[i].count(t, s.address, counterOf(i), writing) })
		}
		for range clients {
			<-writing
		}
		require.Equal(t, 0, s.stop())
		wg.Wait()
		next := start(t, url, "-generation", "2", "-auto-promote").leads()
		for i, c := range clients {
			if c.told() {
				require.NotContains(t, strings.ToLower(c.last.Error()), "unknown", "the store was there")
			}
			value, err := strconv.Atoi(next.cli("GET", counterOf(i)))
			require.NoError(t, err)
			require.Contains(t, c.may(), value, "client %d, which ended by: %v", i, c.last)
		}
	})
}

func counterOf(client int) string { return "counter:" + strconv.Itoa(client) }

// A writer is what one client knows of its counter.
type writer struct {
	acked int
	last  error // what the call after the acknowledged ones ended by
}

// told reports whether the last call had a reply.
func (w *writer) told() bool {
	var reply redis.Error
	return errors.As(w.last, &reply)
}

// may returns what the counter may be, after what the client was told.
func (w *writer) may() []int {
	if refused := w.told() && !strings.HasPrefix(w.last.Error(), "UNKNOWN "); refused || errors.Is(w.last, syscall.ECONNREFUSED) {
		return []int{w.acked}
	}
	return []int{w.acked, w.acked + 1}
}

// count adds to a counter until a call fails.
func (w *writer) count(t *testing.T, address, key string, writing chan<- struct{}) {
	c := redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1})
	defer c.Close()
	for w.last = c.Incr(t.Context(), key).Err(); w.last == nil; w.last = c.Incr(t.Context(), key).Err() {
		if w.acked++; w.acked == 10 {
			writing <- struct{}{}
		}
	}
}
