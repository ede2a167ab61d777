//go:build unix

package lead_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

func TestTheCommandIsStoppedBeforeTheTokenIsHandedOver(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--admin", "127.0.0.1:0"}, s.shell("blue", obeys)...)...)
	blue.happens("up")
	green := s.begin("green", 2, append([]string{"--admin", "127.0.0.1:0"}, s.shell("green", obeys)...)...)
	s.promote(2)
	green.happens("up")
	blue.ends(0)
	require.Contains(t, blue.events(), "asked\n")
	record, err := exitcodes.ReadRecord(blue.record)
	require.NoError(t, err)
	require.True(t, record.Superseded)
	require.NotEmpty(t, record.Fields[exitcodes.AdminField])
	require.Contains(t, green.log(), "the holder hands over")
	green.signal(syscall.SIGTERM)
	green.ends(0)
	require.Contains(t, green.events(), "asked\n")
}

func TestACommandThatDefiesIsKilledWithinTheHandover(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--admin", "127.0.0.1:0", "--handover-timeout", "2s"}, s.shell("blue", "setsid sleep 1000 & \n"+defies)...)...)
	blue.happens("up")
	green := s.begin("green", 2, append([]string{"--auto-promote"}, s.shell("green", obeys)...)...)
	green.happens("up")
	blue.ends(0)
	require.Contains(t, blue.events(), "asked\n")
	require.Contains(t, green.log(), "the holder hands over")
}

func TestACommandThatHasLostItsTokenIsKilledUnasked(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, s.shell("blue", "setsid sleep 1000 & sleep 1000 & \n"+obeys)...)
	blue.happens("up")
	s.command(0, "fence", "--reason", "test")
	blue.ends(166)
	s.free()
	require.NotContains(t, blue.events(), "asked")
	require.Contains(t, blue.log(), "nobody can ask this process to hand over")
	record, err := exitcodes.ReadRecord(blue.record)
	require.NoError(t, err)
	require.Equal(t, exitcodes.Halt.String(), record.Disposition)
}

func TestAStopEndsTheCommandAndThenGivesTheTokenBack(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--lease", "1m", "--stop-signal", "INT"},
		s.shell("blue", `trap 'sleep 0.3; echo asked >>$E; exit 0' INT; echo up >>$E; while :; do sleep 0.02; done`)...)...)
	blue.happens("up")
	twin := s.begin("twin", 1, append([]string{"--lease", "1m"}, s.shell("twin", obeys)...)...)
	twin.says("to=ReadyToPromote")
	blue.signal(syscall.SIGTERM)
	twin.happens("up") // long before the lease is over
	blue.ends(0)
	require.Contains(t, blue.events(), "asked\n")
	require.Contains(t, twin.log(), "has left")
}

func TestTheLeaseIsRenewedWhileTheCommandStops(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--lease", "1s"},
		s.shell("blue", `trap 'sleep 2.5; echo asked >>$E; exit 0' TERM; echo up >>$E; while :; do sleep 0.02; done`)...)...)
	blue.happens("up")
	twin := s.begin("twin", 1, append([]string{"--lease", "1s"}, s.shell("twin", obeys)...)...)
	twin.says("to=ReadyToPromote")
	blue.signal(syscall.SIGTERM)
	twin.happens("up")
	blue.ends(0)
	require.Contains(t, blue.events(), "asked\n", "it was killed while it stopped")
	require.Contains(t, twin.log(), "has left")
}

func TestAStopThatTheCommandDefiesIsForcedAndSaid(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--stop-grace", "50ms"}, s.shell("blue", defies)...)...)
	blue.happens("up")
	blue.signal(syscall.SIGTERM)
	blue.ends(128 + 9)
	s.free()
}

func TestASecondSignalEndsTheCommandToo(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, s.shell("blue", "sleep 1000 &\n"+defies)...)
	blue.happens("up")
	blue.stopUntilItEnds()
	blue.ends(128 + 15)
	require.Contains(t, blue.events(), "asked\n")
	s.free()
}

func TestACommandDoesNotOutliveItsKilledProcess(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, s.shell("blue", "sleep 1000 &\n"+defies)...)
	blue.happens("up")
	s.watched()
	blue.signal(syscall.SIGKILL)
	s.free()
}

func TestACommandDoesNotOutliveTheLeaseOfAStoppedProcess(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--lease", "2s"}, s.shell("blue", "sleep 1000 &\n"+defies)...)...)
	blue.happens("up")
	twin := s.begin("twin", 1, append([]string{"--lease", "2s"}, s.shell("twin", obeys)...)...)
	twin.says("to=ReadyToPromote")
	blue.signal(syscall.SIGSTOP)
	twin.happens("up") // and finds the lock free
	blue.signal(syscall.SIGCONT)
	blue.ends(166)
}

func TestAProcessThatWasStoppedAndNotReplacedStartsItsCommandAnew(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--lease", "600ms"}, s.shell("blue", defies)...)...)
	blue.happens("up")
	blue.signal(syscall.SIGSTOP)
	blue.says("the lease has expired, and the process that holds the token does not run")
	s.free()
	blue.signal(syscall.SIGCONT)
	blue.eventually(func() bool { return strings.Count(blue.events(), "up\n") > 1 }, "a second start")
}

func TestAKeeperThatIsKilledIsReplaced(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--lease", "600ms"}, s.shell("blue", "sleep 1000 &\n"+defies)...)...)
	blue.happens("up")
	s.watched()
	first := keeperOf(blue)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	blue.eventually(func() bool { next := keeperOf(blue); return next != 0 && next != first }, "another keeper")
	blue.signal(syscall.SIGKILL)
	s.free()
}

func TestAfterAHandoverThatNobodyTakesTheCommandIsStartedAnew(t *testing.T) {
	t.Parallel()
	s := newService(t)
	admin := address(t)
	blue := s.begin("blue", 1, append([]string{"--admin", admin, "--handover-timeout", "1s"}, s.shell("blue", obeys)...)...)
	blue.happens("up")
	s.command(1, "step-down", "--force", "--admin", admin)
	blue.eventually(func() bool { return strings.Count(blue.events(), "up\n") == 2 }, "a second start")
	require.Equal(t, 1, strings.Count(blue.events(), "asked\n"))
}

func TestAStepDownMovesTheCommandToAStandby(t *testing.T) {
	t.Parallel()
	s := newService(t)
	admin := address(t)
	blue := s.begin("blue", 1, append([]string{"--admin", admin}, s.shell("blue", obeys)...)...)
	blue.happens("up")
	twin := s.begin("twin", 1, s.shell("twin", obeys)...)
	twin.says("to=ReadyToPromote")
	s.command(0, "step-down", "--admin", admin)
	twin.happens("up")
	twin.signal(syscall.SIGTERM)
	blue.eventually(func() bool { return strings.Count(blue.events(), "up\n") == 2 }, "it leads again")
}

func TestTheCommandIsToldItsTokenAndNoMoreThanThat(t *testing.T) {
	t.Parallel()
	s := newService(t)
	token := s.path("token")
	args := append([]string{"fencepost", "lead", "--generation", "7", "--token-file", token},
		s.shell("blue", `{ env; stat -c %a $FENCEPOST_TOKEN_FILE; cat $FENCEPOST_TOKEN_FILE; } >>$E; echo up >>$E; sleep 1000`)...)
	blue := s.beginUnder("blue", nil, args, []string{"FENCEPOST_GUARD_URL=postgres://u:hunter2@127.0.0.1:1/d?catalog=orders"})
	blue.happens("up")
	for _, line := range []string{
		"FENCEPOST_TOKEN=g7.e1", "FENCEPOST_GENERATION=7", "FENCEPOST_EPOCH=1", "FENCEPOST_TOKEN_FILE=" + token, "600", "g7.e1", "FENCEPOST_CATALOG=orders",
		"FENCEPOST_GUARDED_URL=postgres://u:hunter2@127.0.0.1:1/d?options=-c%20fencepost.token%3Dg7.e1",
	} {
		require.Contains(t, blue.events(), line+"\n")
	}
	require.NotContains(t, blue.events(), "FENCEPOST_GUARD_URL=")
	require.NotContains(t, blue.log(), "hunter2")
	blue.signal(syscall.SIGTERM)
	blue.ends(0)
	require.NoFileExists(t, token)
	entries, err := os.ReadDir(s.dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.False(t, strings.HasPrefix(e.Name(), "fencepost-run-") || strings.HasPrefix(e.Name(), ".fencepost"), e.Name())
	}
}

func TestATokenFileThatASuccessorHasReplacedIsItsOwn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	token := s.path("token")
	blue := s.begin("blue", 1, append([]string{"--token-file", token}, s.shell("blue", obeys)...)...)
	blue.happens("up")
	require.NoError(t, os.WriteFile(token, []byte("g2.e2\n"), 0o600))
	blue.signal(syscall.SIGTERM)
	blue.ends(0)
	require.FileExists(t, token)
}

func TestTheEndOfTheCommandIsTheEndOfLead(t *testing.T) {
	t.Parallel()
	for script, code := range map[string]int{"exit 0": 0, "exit 3": 3, "exit 64": 64, "kill -KILL $$": 128 + 9, "kill -SEGV $$": 128 + 11, "sleep 1000 & exit 5": 5} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			blue := s.begin("blue", 1, "--", "sh", "-c", script)
			blue.ends(code)
			record, err := exitcodes.ReadRecord(blue.record)
			require.NoError(t, err)
			require.EqualValues(t, code, record.Code)
			require.False(t, record.Superseded)
			twin := s.begin("twin", 1, "--", "true")
			twin.ends(0) // at once: the token was given back
		})
	}
}

func TestWhatACommandLeavesIsEndedBeforeTheTokenIsGivenBack(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, s.shell("blue", "setsid sh -c 'trap \"\" TERM; (setsid sleep 1000 &); sleep 1000' & sleep 0.1; exit 0")...)
	blue.ends(0)
	next := s.begin("next", 1, s.shell("next", obeys)...) // and finds the lock free
	next.happens("up")
}

func TestWhatKeepsTheCommandFromBeingStartedIsSaidBeforeItsTurn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, s.shell("blue", obeys)...)
	blue.happens("up")
	for _, c := range []struct {
		code int
		args []string
	}{
		{127, []string{"--", "no-such-command"}},
		{126, []string{"--", s.dir + "/catalog.db"}},
		{78, []string{"--token-file", s.path("absent/token"), "--", "true"}},
		{78, []string{"--token-file", s.dir, "--", "true"}},
		{78, []string{"--admin", "0.0.0.0:1", "--", "true"}},
		{78, []string{"--guard-url", "mysql://h/d", "--", "true"}},
		{78, []string{"--register", "mysql://h/d", "--", "true"}},
		{78, []string{"--store", "redis://h", "--", "true"}},
		{64, []string{"--guard-url", "postgres://u:hunter2@h/d", "--", "true"}},
		{64, []string{"--stop-signal", "NOVA", "--", "true"}},
		{64, []string{"--stop-grace", "0s", "--", "true"}},
		{64, []string{"--ready-notify", "--ready-command", "true", "--", "true"}},
		{64, []string{"--ready-url", "nowhere", "--", "true"}},
		{64, []string{"--ready-address", "8080", "--", "true"}},
		{64, []string{"true"}},
		{64, []string{"--"}},
	} {
		out := s.command(c.code, append([]string{"lead", "--generation", "2"}, c.args...)...)
		require.NotContains(t, out, "hunter2")
	}
	require.Contains(t, s.command(78, "lead", "--", "true"), "FENCEPOST_GENERATION")
	require.Equal(t, 1, strings.Count(blue.events(), "up\n"))
	require.NotContains(t, blue.events(), "asked")
}

func TestSignalsThatAreNoStopArePassedOn(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, s.shell("blue", `trap 'echo hup >>$E' HUP; trap 'echo usr1 >>$E' USR1; trap 'echo quit >>$E' QUIT; `+obeys)...)
	blue.happens("up")
	blue.signal(syscall.SIGHUP)
	blue.happens("hup")
	blue.signal(syscall.SIGUSR1)
	blue.happens("usr1")
	blue.signal(syscall.SIGQUIT)
	blue.happens("quit")
	blue.signal(syscall.SIGTERM)
	blue.ends(0)
}

func TestUnderRunASupersededCommandIsParkedAndAnotherEndIsRestarted(t *testing.T) {
	t.Parallel()
	s := newService(t)
	admin := address(t)
	args := append([]string{"fencepost", "run", "--", os.Args[0], "fencepost", "lead", "--generation", "1", "--admin", admin},
		s.shell("blue", `[ -e `+s.path("again")+` ] || { touch `+s.path("again")+`; exit 166; }; `+obeys)...)
	blue := s.beginUnder("blue", nil, args, nil)
	blue.says("exited 166")
	blue.happens("up")
	green := s.begin("green", 2, append([]string{"--auto-promote"}, s.shell("green", obeys)...)...)
	green.happens("up")
	blue.says("parked until told to stop, answering on " + admin)
	s.healthy("live", admin)
	s.command(1, "health", "standby", "--admin", admin)
	blue.signal(syscall.SIGTERM)
	blue.ends(0)
}
