package kvserver_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

// A teller counts by INCR, one after the other.
type teller struct {
	conn net.Conn
	in   *bufio.Reader
}

func newTeller(t *testing.T, address string) *teller {
	conn, err := net.DialTimeout("tcp", address, patience)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return &teller{conn, bufio.NewReader(conn)}
}

func (c *teller) ask() error {
	_, err := fmt.Fprint(c.conn, "INCR n\r\n")
	return err
}

// reply reports whether the count was acknowledged.
func (c *teller) reply() bool {
	line, err := c.in.ReadString('\n')
	return err == nil && strings.HasPrefix(line, ":")
}

// pause stops a server that is in the middle of no write: on SQLite a process that
// stops in one holds the file, and no claim can pass by it.
func (s *server) pause(next *server) {
	require.Eventually(s.t, func() bool {
		require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGSTOP))
		for end := time.Now().Add(8 * time.Second); time.Now().Before(end); {
			if strings.Contains(next.cli("INFO", "fencepost"), "fencepost_phase:leading\r\n") {
				return true
			}
		}
		require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGCONT))
		return false
	}, 3*patience, 100*time.Millisecond)
}

func TestAHolderThatIsStoppedPastItsLeaseAcknowledgesNothingBehindTheClaim(t *testing.T) {
	onEveryStore(t, func(t *testing.T, url string) {
		lease := []string{"-generation", "1", "-lease", "2s"}
		old := start(t, url, lease...).leads()
		next := start(t, url, lease...)
		tellers := make([]*teller, 8)
		for i := range tellers {
			tellers[i] = newTeller(t, old.address)
			for range 10 {
				require.NoError(t, tellers[i].ask())
				require.True(t, tellers[i].reply())
			}
		}
		old.pause(next)
		for _, c := range tellers {
			require.NoError(t, c.ask()) // which the stopped process finds when it goes on
		}
		require.Equal(t, "80", next.cli("GET", "n"))
		require.NoError(t, old.cmd.Process.Signal(syscall.SIGCONT))
		for _, c := range tellers {
			require.False(t, c.reply(), "a write behind the claim was acknowledged")
		}
		require.Equal(t, int(exitcodes.Restart), old.exitCode())
		require.Equal(t, "80", next.cli("GET", "n"))
		require.Equal(t, "OK", next.cli("SET", "a", "1"))
		require.Equal(t, int(exitcodes.Success), next.stop())
	})
}
