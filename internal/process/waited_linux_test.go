package process_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/identity"
	"github.com/fencepost/fencepost/internal/process"
)

func TestACommandIsNamedAsEndedOnlyOnceItWasWaitedFor(t *testing.T) {
	r := process.NewReaper()
	g, err := r.Start(process.Spec{
		Command: []string{"sleep", "1000"}, Files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, KillGrace: time.Minute, Tell: t.Logf,
	})
	require.NoError(t, err)
	who, err := identity.Child(g.PID())
	require.NoError(t, err)
	g.Kill()
	require.Eventually(t, func() bool { ended, _ := who.Ended(); return ended }, time.Minute, time.Millisecond)
	require.True(t, g.WaitedFor().IsZero(), "it has ended, and nobody has waited for it")
	r.Reap()
	require.Equal(t, who, g.WaitedFor())
}
