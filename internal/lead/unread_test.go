//go:build unix

package lead_test

import (
	"os"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHandoversFencesAndEndsGoOnThoughNobodyReadsWhatLeadSays(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.unread = true
	admin := []string{"--admin", "127.0.0.1:0"}
	blue := s.begin("blue", 1, append(admin, s.shell("blue", obeys)...)...)
	blue.happens("up")
	green := s.begin("green", 2, append(admin, s.shell("green", obeys)...)...)
	s.promote(2)
	green.happens("up")
	blue.ends(0)
	blue.happens("asked") // in a handover, and before green came
	green.signal(syscall.SIGTERM)
	green.ends(0)
	last := s.begin("last", 2, append(admin, s.shell("last", obeys)...)...)
	last.happens("up")
	s.command(0, "fence", "--reason", "test")
	last.ends(166)
}

func TestTheKeeperKillsAndEndsThoughNobodyReadsWhatItSays(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.unread = true
	blue := s.begin("blue", 1, s.shell("blue", "sleep 1000 &\n"+defies)...)
	blue.happens("up")
	s.watched()
	cmdline := "/proc/" + strconv.Itoa(keeperOf(blue)) + "/cmdline"
	require.FileExists(t, cmdline)
	blue.signal(syscall.SIGKILL)
	s.free()
	blue.eventually(func() bool { line, _ := os.ReadFile(cmdline); return len(line) == 0 }, "the keeper's end")
}
