//go:build unix

package process_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/process"
)

// How groups are started and ended is tried by packages entrypoint and lead.

func TestASignalIsANameOrANumber(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "SIGTERM": syscall.SIGTERM, "int": syscall.SIGINT, "15": syscall.SIGTERM, "SIGUSR1": syscall.SIGUSR1} {
		got, err := process.ParseSignal(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"", "0", "-9", "65", "NOVA", "SIG", "TERM "} {
		_, err := process.ParseSignal(text)
		require.Error(t, err, text)
	}
}

func TestAnEnvironmentHasEachChangedNameOnce(t *testing.T) {
	t.Parallel()
	environ := []string{"A=1", "B=2", "A=3", "AB=4"}
	require.Equal(t, []string{"B=2", "AB=4", "A=5", "C=6"}, process.With(environ, map[string]string{"A": "5", "C": "6"}))
	require.Equal(t, []string{"AB=4"}, process.With(environ, map[string]string{"A": "", "B": "", "C": ""}))
	require.Equal(t, []string{"A=1", "B=2", "A=3", "AB=4"}, environ)
}
