package teststop

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryThreadOfAProcessStandsStillOnceItWasStopped(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
	require.NoError(t, cmd.Start())
	for range 20 {
		require.False(t, stopped(cmd.Process.Pid))
		Stop(t, cmd.Process.Pid)
		require.True(t, stopped(cmd.Process.Pid))
		require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
		require.Eventually(t, func() bool { return !stopped(cmd.Process.Pid) }, waits, tick)
	}
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.False(t, stopped(cmd.Process.Pid), "one that has ended does not stand still")
}
