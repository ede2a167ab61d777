package kvserver_test

import (
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testetcd"
	"github.com/fencepost/fencepost/internal/testpg"
)

// An outage takes a server away from under commits, and brings it back.
type outage struct {
	url        string
	begin, end func()
}

// crashOf has PostgreSQL crash while a commit is known to be there.
func crashOf(t *testing.T) outage {
	server := testpg.NewServer(t)
	return outage{server.URL, func() {
		conn := testpg.Connect(t, server.URL)
		_, err := conn.Exec(t.Context(), `begin; select from fencepost.head for update`)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return testpg.Waiting(server.URL) != 0 }, patience, 5*time.Millisecond)
		server.Crash()
	}, server.Start}
}

// silenceOf has etcd stop as it stands. What it was sent it may carry out later.
func silenceOf(t *testing.T) outage {
	server := testetcd.NewServer(t, testetcd.Options{})
	return outage{server.URL(), func() { server.Signal(syscall.SIGSTOP) }, func() { server.Signal(syscall.SIGCONT) }}
}

// TestAStoreThatStaysAwayForLongerThanTheBudgetEndsAServerWith75 takes the store
// away while clients write, each its own counter, and brings it back once the
// server has ended.
func TestAStoreThatStaysAwayForLongerThanTheBudgetEndsAServerWith75(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]func(*testing.T) outage{"postgres": crashOf, "etcd": silenceOf} {
		t.Run(name, func(t *testing.T) {
			o, path := of(t), filepath.Join(t.TempDir(), "ending")
			s := startImpatient(t, o.url, path, "-generation", "1").leads()
			clients := make([]writer, 8)
			var wg sync.WaitGroup
			writing := make(chan struct{}, len(clients))
			for i := range clients {
				wg.Go(func() { clients[i].count(t, s.address, counterOf(i), writing) })
			}
			for range clients {
				<-writing
			}
			o.begin()
			require.Equal(t, 75, s.exitCode())
			wg.Wait()
			endedByRetry(t, path)
			o.end()
			nothingIsLost(t, clients, start(t, o.url, "-generation", "1").leads())
		})
	}
}

func endedByRetry(t *testing.T, path string) {
	t.Helper()
	record, err := exitcodes.ReadRecord(path)
	require.NoError(t, err)
	require.EqualValues(t, 75, record.Code)
	require.Equal(t, exitcodes.Retry.String(), record.Disposition)
	require.False(t, record.Superseded)
	require.False(t, record.StopRequested)
}

// nothingIsLost requires that every client finds what it was told, and that one
// at least was told that its write is in doubt.
func nothingIsLost(t *testing.T, clients []writer, next *server) {
	t.Helper()
	doubts := 0
	for i, c := range clients {
		value, err := strconv.Atoi(next.cli("GET", counterOf(i)))
		require.NoError(t, err)
		require.Contains(t, c.may(), value, "client %d, which ended by: %v", i, c.last)
		if c.told() && strings.HasPrefix(c.last.Error(), "UNKNOWN ") {
			doubts++
		}
		require.Equal(t, strconv.Itoa(value+1), next.cli("INCR", counterOf(i)), "it goes on from there")
	}
	require.NotZero(t, doubts, "a commit was under way")
}
