package teststop_test

import (
	"bufio"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/teststop"
)

func TestAProcessThatWasStoppedSaysNothingMoreUntilItIsContinued(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "echo ready; read line; echo $line")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	require.Equal(t, "ready", <-lines)
	teststop.Stop(t, cmd.Process.Pid)
	_, err = in.Write([]byte("hello\n"))
	require.NoError(t, err)
	select {
	case line := <-lines:
		require.Fail(t, "it goes on", line)
	default:
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	require.Equal(t, "hello", <-lines)
	<-lines
	require.NoError(t, cmd.Wait())
}
