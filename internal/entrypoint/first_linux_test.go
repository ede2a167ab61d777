package entrypoint

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// beginFirst runs steps where run is the first process of a PID namespace, as
// it is of a container.
func beginFirst(t *testing.T, cfg Config, steps ...string) *running {
	t.Helper()
	under := []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}
	if os.Getuid() != 0 {
		under = append(under, "--map-root-user")
	}
	return beginUnder(t, under, cfg, steps...)
}

// first returns the number that the first process of the namespace has outside.
func (r *running) first() int {
	r.t.Helper()
	kin := slices.Collect(maps.Keys(childrenOf(r.t, r.cmd.Process.Pid)))
	require.Len(r.t, kin, 1)
	pid, err := strconv.Atoi(kin[0])
	require.NoError(r.t, err)
	return pid
}

func (r *running) signalFirst(sig syscall.Signal) {
	r.t.Helper()
	require.NoError(r.t, syscall.Kill(r.first(), sig))
}

func TestTheFirstProcessReapsOrphansOfADoubleFork(t *testing.T) {
	r := beginFirst(t, Config{}, "bury")
	r.happens("child ready", 1)
	r.happens("orphan adopted-by-1", 1)
	first := r.first()
	require.Eventually(t, func() bool {
		kin := childrenOf(t, first)
		return len(kin) == 1 && !slices.Contains(slices.Collect(maps.Values(kin)), "Z")
	}, time.Minute, 5*time.Millisecond, "only the living child remains")
	r.signalFirst(syscall.SIGTERM)
	r.ends(0)
}

func TestTheFirstProcessForwardsAStopToTheWholeGroup(t *testing.T) {
	r := beginFirst(t, Config{}, "pair=listen")
	r.happens("child ready", 1)
	r.happens("member ready", 1)
	r.signalFirst(syscall.SIGTERM)
	r.happens(fmt.Sprintf("child signal-%d", syscall.SIGTERM), 1)
	r.happens(fmt.Sprintf("member signal-%d", syscall.SIGTERM), 1)
	r.ends(0)
}

func TestTheFirstProcessKillsTheGroupAfterTheStopGrace(t *testing.T) {
	r := beginFirst(t, Config{StopGrace: 100 * time.Millisecond}, "pair=deaf")
	r.happens("child ready", 1)
	r.happens("member ready", 1)
	r.signalFirst(syscall.SIGTERM)
	r.ends(0)
	r.says("is still there after 100ms: SIGKILL")

	r = beginFirst(t, Config{StopGrace: 100 * time.Millisecond}, "deaf")
	r.happens("child ready", 1)
	r.signalFirst(syscall.SIGTERM)
	r.ends(137)
	require.NotContains(t, r.read(r.stderr), "left behind", "it ended by SIGKILL")
}

func TestTheFirstProcessRestartsAndParksLikeAnyOther(t *testing.T) {
	address := free(t)
	r := beginFirst(t, Config{}, "exit=166", "kill=9", "exit=2", "superseded="+address)
	r.says("parked until told to stop, answering on " + address + ", after 3 restarts")
	requireAnswer(t, "http://"+address+"/livez", 200, "parked: superseded: held g7.e41")
	r.signalFirst(syscall.SIGTERM)
	r.ends(0)

	r = beginFirst(t, Config{OnSuperseded: End}, "exit=2", "superseded="+address)
	r.ends(0)
	require.Equal(t, 2, r.count("child started"))
}

func TestTheDelaysOfACrashLoopDoubleAndHealthForgetsThem(t *testing.T) {
	loop := []string{"exit=166", "exit=166", "exit=166", "exit=166", "exit=166", "exit=0"}
	crashing := Config{HealthyAfter: time.Hour, FirstDelay: 4 * time.Millisecond, MaxDelay: 16 * time.Millisecond}
	r := begin(t, crashing, loop...)
	r.ends(0)
	delays := r.delays()
	require.Zero(t, delays[0], "the first halt")
	for i, middle := range []time.Duration{4, 8, 16, 16} {
		middle *= time.Millisecond
		require.GreaterOrEqual(t, delays[i+1], middle/2, "restart %d: %v", i, delays)
		require.LessOrEqual(t, delays[i+1], min(middle*3/2, crashing.MaxDelay), "restart %d: %v", i, delays)
	}

	healthy := crashing
	healthy.HealthyAfter = time.Nanosecond // every child is, before it ends
	r = begin(t, healthy, loop...)
	r.ends(0)
	require.Equal(t, make([]time.Duration, len(loop)-1), r.delays())
}

// delays are those that run said before each restart.
func (r *running) delays() (all []time.Duration) {
	r.t.Helper()
	for line := range strings.Lines(r.read(r.stderr)) {
		_, said, found := strings.Cut(line, ": restarting ")
		if !found {
			continue
		}
		said, _, _ = strings.Cut(strings.TrimSpace(said), ",")
		if said == "at once" {
			all = append(all, 0)
			continue
		}
		d, err := time.ParseDuration(strings.TrimPrefix(said, "in "))
		require.NoError(r.t, err, line)
		all = append(all, d)
	}
	return all
}
