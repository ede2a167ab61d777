//go:build unix

package lead_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestASignalThatCameWhileNoCommandRanIsNotPassedOn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, s.shell("blue", obeys)...)
	blue.happens("up")
	twin := s.begin("twin", 1, s.shell("twin", obeys)...)
	twin.says("to=ReadyToPromote")
	twin.signal(syscall.SIGHUP) // the default is to end
	twin.signal(syscall.SIGUSR1)
	blue.signal(syscall.SIGTERM)
	twin.happens("up")
	twin.says("a signal came while no command ran")
	twin.signal(syscall.SIGTERM)
	twin.ends(0)
	require.Contains(t, twin.events(), "asked\n")
}

// A deploy that has promoted the next generation often stops the old one at once.
func TestACommandThatIsStoppedForAHandoverIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--admin", "127.0.0.1:0", "--handover-timeout", "40s"},
		s.shell("blue", `trap 'echo asked >>$E' TERM; echo up >>$E; until [ -e `+s.path("go")+` ]; do sleep 0.02; done`)...)...)
	blue.happens("up")
	s.begin("green", 2, append([]string{"--auto-promote", "--handover-timeout", "40s"}, s.shell("green", obeys)...)...)
	blue.happens("asked")
	blue.signal(syscall.SIGTERM)
	blue.eventually(func() bool { return strings.Count(blue.log(), "the command is stopped") == 2 }, "a stop behind a handover")
	require.NoError(t, os.WriteFile(s.path("go"), nil, 0o600))
	blue.ends(0)
	require.Equal(t, 1, strings.Count(blue.events(), "asked\n"))
}
