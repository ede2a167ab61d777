//go:build unix

package entrypoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/process"
)

func TestEverySignalReachesTheWholeGroup(t *testing.T) {
	r := begin(t, Config{}, "pair=listen")
	r.happens("child ready", 1)
	r.happens("member ready", 1)
	for _, sig := range process.Forwarded() {
		number := sig.(syscall.Signal)
		if number == syscall.SIGTERM || number == syscall.SIGINT {
			continue // a stop, below
		}
		r.signal(number)
		r.happens(fmt.Sprintf("child signal-%d", number), 1)
		r.happens(fmt.Sprintf("member signal-%d", number), 1)
	}
	r.signal(syscall.SIGINT)
	r.happens(fmt.Sprintf("child signal-%d", syscall.SIGINT), 1)
	r.happens(fmt.Sprintf("member signal-%d", syscall.SIGINT), 1)
	r.stopUntilItEnds()
	r.ends(0)
	r.happens(fmt.Sprintf("child signal-%d", syscall.SIGTERM), 1)
	r.happens(fmt.Sprintf("member signal-%d", syscall.SIGTERM), 1)
}

func TestAfterAStopRunEndsWithTheChildsCode(t *testing.T) {
	for step, code := range map[string]int{"listen=0": 0, "listen=3": 3, "listen=166": 166, "stop": 0, "wait": 0} {
		r := begin(t, Config{}, step)
		r.happens("child ready", 1)
		r.signal(syscall.SIGTERM)
		r.ends(code)
	}
}

func TestAChildThatIgnoresTheStopIsKilledAfterTheGrace(t *testing.T) {
	r := begin(t, Config{StopGrace: 100 * time.Millisecond}, "deaf")
	r.happens("child ready", 1)
	r.signal(syscall.SIGTERM)
	r.ends(137)
	r.says("is still there after 100ms: SIGKILL")
}

func TestAMemberOfTheGroupThatIgnoresTheStopIsKilledAfterTheGrace(t *testing.T) {
	r := begin(t, Config{StopGrace: 100 * time.Millisecond}, "pair=deaf")
	r.happens("child ready", 1)
	r.happens("member ready", 1)
	r.signal(syscall.SIGTERM)
	r.ends(0)
	r.says("is still there after 100ms: SIGKILL")
}

func TestWhatACrashedChildLeftInItsGroupIsGoneBeforeTheNextStart(t *testing.T) {
	r := begin(t, Config{StopGrace: 100 * time.Millisecond}, "leave=deaf", "exit=0")
	r.ends(0)
	r.says("is still there after 100ms: SIGKILL")

	r = begin(t, Config{StopGrace: time.Minute}, "leave=listen", "exit=0")
	r.ends(0)
	r.happens(fmt.Sprintf("member signal-%d", syscall.SIGTERM), 1)
}

func TestASecondStopIsForwardedToo(t *testing.T) {
	r := begin(t, Config{StopGrace: time.Minute}, "hang")
	r.happens("child ready", 1)
	r.signal(syscall.SIGTERM)
	r.happens("child stopping", 1)
	r.stopUntilItEnds()
	r.ends(143)
}

// stopUntilItEnds asks again and again: what comes soon after the first one belongs to
// the same request.
func (r *running) stopUntilItEnds() {
	for {
		_ = r.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-r.ended:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestStopsOfOneRequestReachTheChildOnce(t *testing.T) {
	r := begin(t, Config{StopGrace: time.Minute}, "count=3")
	r.happens("child ready", 1)
	stops := func() int {
		return r.count(fmt.Sprintf("child signal-%d", syscall.SIGTERM)) + r.count(fmt.Sprintf("child signal-%d", syscall.SIGINT))
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGTERM} {
		r.signal(sig)
	}
	require.Eventually(t, func() bool { return stops() > 0 }, time.Minute, time.Millisecond)
	r.signal(syscall.SIGUSR1)
	r.ends(3)
	require.Equal(t, 1, stops())
}

func TestAStopBetweenTwoStartsEndsWithZero(t *testing.T) {
	r := begin(t, Config{FirstDelay: time.Hour, MaxDelay: time.Hour}, "exit=1")
	r.says("restarting in ")
	r.signal(syscall.SIGTERM)
	r.ends(0)
	r.says("while no child ran: done (exit 0)")
}

func TestAStopIsNotRepeatedWhereItEndsTheChildBeforeTheRestOfItsGroup(t *testing.T) {
	events := filepath.Join(t.TempDir(), "events")
	r := begin(t, Config{StopGrace: time.Minute, Command: []string{
		"sh", "-c", `echo "shell started $$" >> "$1"
		trap 'until grep -q stopping "$1"; do :; done; exit 0' TERM; "$0" member "$1" drain & wait`, os.Args[0], events}})
	r.events = events
	r.happens("member ready", 1)
	r.signal(syscall.SIGTERM)
	r.happens("member stopping", 1)
	shell, err := strconv.Atoi(strings.Fields(r.read(events))[2])
	require.NoError(t, err)
	require.Eventually(t, func() bool { return syscall.Kill(shell, 0) == syscall.ESRCH }, time.Minute, 5*time.Millisecond)
	r.release()
	r.ends(0)
	require.Equal(t, 1, r.count("member drained"), "a second stop would have cut it short")
}

func TestWhatSIGKILLDoesNotEndIsLeftBehindAfterAWhile(t *testing.T) {
	r := begin(t, Config{StopGrace: 50 * time.Millisecond, KillGrace: 50 * time.Millisecond}, "zombie", "exit=0")
	defer r.release()
	r.ends(0)
	require.Equal(t, 2, r.count("child started"))
	r.says("is still there after 50ms: SIGKILL")
	r.says("is still there 50ms after SIGKILL: it is left behind\n")
}
