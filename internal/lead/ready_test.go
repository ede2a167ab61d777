//go:build unix

package lead_test

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	heldby "github.com/fencepost/fencepost/internal/lead"
	"github.com/fencepost/fencepost/internal/process"
)

func TestTheProbesAndCommandsOfAServerWorkForACommand(t *testing.T) {
	t.Parallel()
	s := newService(t)
	one, two := address(t), address(t)
	ready := os.Args[0] + " notify READY=1 'STATUS=warm'"
	blue := s.begin("blue", 1, append([]string{"--admin", one, "--ready-notify"},
		s.shell("blue", "echo up >>$E; until [ -e "+s.path("warm")+" ]; do sleep 0.02; done; "+ready+"; "+obeys)...)...)
	blue.happens("up")
	s.healthy("live", one)
	s.healthy("standby", one)
	require.Contains(t, s.command(1, "health", "leader", "--admin", one), "the command is not ready yet")
	require.NoError(t, os.WriteFile(s.path("warm"), nil, 0o600))
	s.healthy("leader", one)

	green := s.begin("green", 2, append([]string{"--admin", two, "--ready-notify"}, s.shell("green", ready+"; "+obeys)...)...)
	s.healthy("standby", two)
	s.command(1, "health", "leader", "--admin", two)
	s.promote(2)
	s.healthy("leader", two)
	blue.ends(0)
	require.Contains(t, s.command(0, "status"), "green")
	require.NotContains(t, blue.log(), "nobody can ask")
	green.signal(syscall.SIGTERM)
	green.ends(0)
}

func TestTheServiceManagerHearsOfLeadAndOfItsCommand(t *testing.T) {
	t.Parallel()
	s := newService(t)
	socket := s.path("notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer conn.Close()
	var heard []string
	until := func(text string) {
		buf := make([]byte, 8192)
		for {
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
			n, err := conn.Read(buf)
			require.NoError(t, err, "%q did not come after %q", text, heard)
			heard = append(heard, string(buf[:n]))
			if strings.Contains(string(buf[:n]), text) {
				return
			}
		}
	}
	args := append([]string{"fencepost", "lead", "--generation", "1", "--stop-grace", "10s"},
		s.shell("blue", os.Args[0]+" notify 'STATUS=3 orders wait' MAINPID=1 STOPPING=1; "+obeys)...)
	blue := s.beginUnder("blue", nil, args, []string{exitcodes.NotifySocketEnv + "=" + socket})
	until("READY=1")
	until("STATUS=leads as g1.e1: 3 orders wait")
	blue.happens("up")
	require.NotContains(t, strings.Join(heard, "\n"), "STOPPING=1")
	require.NotContains(t, strings.Join(heard, "\n"), "MAINPID")
	blue.signal(syscall.SIGTERM)
	until("STOPPING=1")
	require.Regexp(t, `EXTEND_TIMEOUT_USEC=\d+`, heard[len(heard)-1])
	blue.ends(0)
}

func TestAnotherUserOfTheHostSaysNothingForTheCommand(t *testing.T) {
	t.Parallel()
	me, other, group := os.Geteuid(), os.Geteuid()+1, syscall.Getpgrp()
	require.True(t, heldby.Speaks(process.Word{PID: 1 << 30, UID: me}, group), "what has ended since")
	require.True(t, heldby.Speaks(process.Word{PID: os.Getpid(), UID: other}, group), "a command that runs as another user")
	require.False(t, heldby.Speaks(process.Word{PID: 1 << 30, UID: other}, group))
	require.False(t, heldby.Speaks(process.Word{PID: os.Getpid(), UID: other}, group+1))
}

func TestACommandIsReadyOnceItAcceptsConnections(t *testing.T) {
	t.Parallel()
	s := newService(t)
	admin, port := address(t), address(t)
	blue := s.begin("blue", 1, append([]string{"--admin", admin, "--ready-address", port},
		s.shell("blue", "echo up >>$E; until [ -e "+s.path("warm")+" ]; do sleep 0.02; done; exec "+os.Args[0]+" serve "+port)...)...)
	blue.happens("up")
	require.Contains(t, s.command(1, "health", "leader", "--admin", admin), "the command is not ready yet")
	require.NoError(t, os.WriteFile(s.path("warm"), nil, 0o600))
	s.healthy("leader", admin)
	blue.signal(syscall.SIGTERM)
	blue.ends(0)
}

func TestACommandSaysThatItIsBusyAndAPromotionWaitsForItsIdleMoment(t *testing.T) {
	t.Parallel()
	s := newService(t)
	word := func(text string) string { return os.Args[0] + " notify 'X_FENCEPOST_BUSY=" + text + "'" }
	blue := s.begin("blue", 1, append([]string{"--admin", "127.0.0.1:0"},
		s.shell("blue", word("a backup")+"; echo up >>$E; until [ -e "+s.path("done")+" ]; do sleep 0.02; done; "+word("")+"; "+obeys)...)...)
	blue.happens("up")
	require.Eventually(t, func() bool { return strings.Contains(s.command(0, "status"), "busy with a backup") }, time.Minute, 50*time.Millisecond)
	require.Eventually(t, func() bool { // a busy machine may not read the store in that time
		return strings.Contains(s.command(75, "promote", "--generation", "2", "--force", "--when-idle", "--within", "300ms"), "is busy with a backup")
	}, time.Minute, time.Millisecond)
	green := s.begin("green", 2, append([]string{"--admin", "127.0.0.1:0"}, s.shell("green", obeys)...)...)
	green.says("to=ReadyToPromote")
	require.NoError(t, os.WriteFile(s.path("done"), nil, 0o600))
	s.command(0, "promote", "--generation", "2", "--when-idle", "--timeout", "1m")
	blue.ends(0)
	green.signal(syscall.SIGTERM)
	green.ends(0)
}

func TestACommandThatCouldNotServeIsHandedNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	blue := s.begin("blue", 1, append([]string{"--admin", "127.0.0.1:0"}, s.shell("blue", obeys)...)...)
	blue.says("to=Leading")
	green := s.begin("green", 2, append([]string{"--admin", "127.0.0.1:0", "--lease", "1s",
		"--prepare", `[ -z "$FENCEPOST_TOKEN" ] && [ $FENCEPOST_GENERATION = 2 ] && [ -e ` + s.path("could") + ` ]`}, s.shell("green", obeys)...)...)
	require.Eventually(t, func() bool {
		return strings.Contains(s.command(0, "status"), "it could not serve: the hook prepare: it ended with status 1")
	}, time.Minute, 50*time.Millisecond)
	require.Contains(t, s.command(75, "promote", "--generation", "2", "--force", "--timeout", "2s"), "the promotion stays")
	require.NotContains(t, blue.log(), "to=HandingOver")
	require.NoError(t, os.WriteFile(s.path("could"), nil, 0o600))
	green.says("to=Leading")
	blue.ends(0)
	green.signal(syscall.SIGTERM)
	green.ends(0)
}
