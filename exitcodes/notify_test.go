package exitcodes_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

// A manager is a socket such as systemd's, with what was said to it.
type manager struct {
	t    *testing.T
	name string
	conn *net.UnixConn
}

// managing listens at a path, or at an abstract address where name begins with @.
func managing(t *testing.T, name string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &manager{t, name, conn}
}

// hears returns the next message. It was sent already, or is about to be.
func (m *manager) hears() string {
	m.t.Helper()
	buf := make([]byte, 4096)
	require.NoError(m.t, m.conn.SetReadDeadline(time.Now().Add(time.Minute)))
	n, err := m.conn.Read(buf)
	require.NoError(m.t, err)
	return string(buf[:n])
}

// silent requires that nothing else was said by a process that has ended.
func (m *manager) silent() {
	m.t.Helper()
	require.NoError(m.t, sayNothingElse(m.name))
	require.Equal(m.t, "nothing else", m.hears())
}

func sayNothingElse(name string) error {
	conn, err := net.Dial("unixgram", name)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("nothing else"))
	return err
}

func TestTheServiceManagerHearsHowAProcessEnds(t *testing.T) {
	for _, c := range []struct {
		role string
		want []string
	}{
		// Ending with 0 before READY=1 would count as a failure, and be answered by a start.
		{"superseded", []string{"READY=1", "STOPPING=1\nSTATUS=serving: superseded: held g7.e41, the store has g8.e42 of green: "}},
		{"exit superseded", []string{"READY=1", "STOPPING=1\nSTATUS=serving: superseded: "}},
		{"nothing", []string{"READY=1", "STOPPING=1\nSTATUS=done (exit 0)"}},
		{"fenced", []string{"STOPPING=1\nSTATUS=fenced by epoch: held g7.e41"}},
		{"explained", []string{"READY=1", "STOPPING=1\nSTATUS=lost; superseded: "}},
		{"broken", []string{"STOPPING=1\nSTATUS=lost commit (panic, exit 2)"}},
		{"end", []string{
			"STOPPING=1\nSTATUS=stopping: fenced by epoch: ",
			"STOPPING=1\nSTATUS=fenced by epoch: ",
		}},
	} {
		t.Run(c.role, func(t *testing.T) {
			for _, name := range []string{filepath.Join(t.TempDir(), "notify"), fmt.Sprintf("@fencepost-%d-%s", os.Getpid(), c.role)} {
				m := managing(t, name)
				cmd, wait := playing(t, c.role)
				cmd.Env = append(cmd.Env, exitcodes.NotifySocketEnv+"="+name)
				require.NoError(t, cmd.Start())
				wait()
				for _, want := range c.want {
					got := m.hears()
					require.True(t, strings.HasPrefix(got, want), got)
				}
				m.silent()
			}
		})
	}
}

func TestTheServiceManagerIsAskedForTheGraceOfAStop(t *testing.T) {
	m := managing(t, filepath.Join(t.TempDir(), "notify"))
	cmd, wait := playing(t, "hang") // work that returns at once may need no grace, and ask for none
	cmd.Env = append(cmd.Env, exitcodes.NotifySocketEnv+"="+m.name)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Equal(t, "STOPPING=1\nSTATUS=stopping: stop requested by signal terminated\nEXTEND_TIMEOUT_USEC=1200000", m.hears())
	require.Equal(t, 0, wait().code)
}

func TestAMessageIsOneLineForEachAssignment(t *testing.T) {
	m := managing(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv(exitcodes.NotifySocketEnv, m.name)
	require.NoError(t, exitcodes.Notify("STATUS=two\nREADY=1", "X=1"))
	require.Equal(t, "STATUS=two; READY=1\nX=1", m.hears())
}

func TestAServiceManagerThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	m := managing(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv(exitcodes.NotifySocketEnv, m.name)
	var err error
	for range 100_000 {
		if err = exitcodes.Notify("STATUS=full"); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestWithoutAServiceManagerNothingIsTold(t *testing.T) {
	t.Setenv(exitcodes.NotifySocketEnv, "")
	require.NoError(t, exitcodes.Notify("READY=1"))
	t.Setenv(exitcodes.NotifySocketEnv, filepath.Join(t.TempDir(), "nobody"))
	require.ErrorIs(t, exitcodes.Notify("READY=1"), os.ErrNotExist)
}
