package supervisors

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

// setting is what a unit or drop-in says for a name.
func setting(t *testing.T, file, name string) string {
	t.Helper()
	_, rest, found := strings.Cut("\n"+example(t, file), "\n"+name+"=")
	require.True(t, found, "%s has no %s", file, name)
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d
}

// requireDelays requires that starts came no sooner than the delays say, and of
// their order of magnitude: a start itself takes time, on a busy machine much.
func requireDelays(t *testing.T, want, got []time.Duration) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.GreaterOrEqual(t, got[i], want[i]*9/10, "restart %d of %v", i+1, got)
		require.Less(t, got[i], want[i]+20*time.Second, "restart %d of %v", i+1, got)
	}
}

func TestTheUnitRestartsAfterAsLongAsTheTableSays(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	s := beginSystemd(t, map[string]string{
		"fencepost@.service":             example(t, "systemd/fencepost@.service"),
		"fencepost-run@.service":         example(t, "systemd/fencepost-run@.service"),
		"fencepost@.service.d/test.conf": asIs(child(t, "fenced", log, 3)),
	}, "fencepost@8.service")
	for _, unit := range []string{"fencepost@8", "fencepost-run@8"} {
		require.Equal(t, "1s", s.show(unit, "RestartUSec"), unit)
		require.Equal(t, "0", s.show(unit, "StartLimitIntervalUSec"), "%s is given up", unit)
	}
	m, _ := exitcodes.MeaningOf(exitcodes.Restart)
	require.Equal(t, "restarts after 1 s", does(t, m, "systemd"))
	require.Equal(t, "1s", setting(t, "systemd/fencepost@.service", "RestartSec"))

	s.must("start", "--no-block", "fencepost@8")
	eventually(t, "its third start", func() bool { return starts(log) == 3 })
	requireDelays(t, []time.Duration{time.Second, time.Second}, gaps(t, log))

	require.Equal(t, "2", s.show("fencepost@8", "NRestarts"))
	s.must("stop", "fencepost@8")
	s.must("start", "fencepost@8")
	require.Equal(t, "0", s.show("fencepost@8", "NRestarts"), "a stop makes it forget")
}

// growing are the delays of the drop-in, from the first restart to the first of
// the longest. Each is the same multiple of the one before, which is how systemd
// has it from 254 on (RestartSteps= in systemd.service(5)).
func growing(t *testing.T) []time.Duration {
	t.Helper()
	const file = "systemd/from-254/backoff.conf"
	first, longest := duration(t, setting(t, file, "RestartSec")), duration(t, setting(t, file, "RestartMaxDelaySec"))
	steps, err := strconv.Atoi(setting(t, file, "RestartSteps"))
	require.NoError(t, err)
	var all []time.Duration
	for i := range steps + 1 {
		all = append(all, time.Duration(float64(first)*math.Pow(float64(longest)/float64(first), float64(i)/float64(steps))))
	}
	return all
}

// spoken is a duration as the page has it, with two digits that count.
func spoken(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Round(10*time.Millisecond).Milliseconds())
	}
	return strconv.FormatFloat(d.Seconds(), 'g', 2, 64) + " s"
}

func TestThePageAndTheDropInSayTheSameDelays(t *testing.T) {
	t.Parallel()
	var words []string
	for _, d := range growing(t) {
		words = append(words, spoken(d))
	}
	last := len(words) - 1
	require.Contains(t, strings.Join(strings.Fields(page(t)), " "), "it waits "+strings.Join(words[:last], ", ")+", and then always "+words[last])
	require.Len(t, words, 7)
	require.Contains(t, example(t, "systemd/from-254/backoff.conf"), fmt.Sprintf(
		"The first restart comes after %s, the seventh and all later ones after %s.", words[0], words[last]))
}

// A systemd before 254 knows of the drop-in only the first delay. What a later
// one does with it is played where one is installed.
func TestTheDropInsDelaysAreThoseOfTheRunningSystemd(t *testing.T) {
	t.Parallel()
	const restarts = 4
	log := filepath.Join(t.TempDir(), "log")
	s := beginSystemd(t, map[string]string{
		"fencepost@.service":                example(t, "systemd/fencepost@.service"),
		"fencepost@.service.d/backoff.conf": example(t, "systemd/from-254/backoff.conf"),
		"fencepost@.service.d/test.conf":    asIs(child(t, "fenced", log, restarts+1)),
	}, "fencepost@8.service")
	want := growing(t)[:restarts]
	require.Equal(t, "100ms", s.show("fencepost@8", "RestartUSec"))
	if systemdVersion(t) < 254 {
		for i := range want {
			want[i] = want[0]
		}
	} else {
		require.Equal(t, "6", s.show("fencepost@8", "RestartSteps"))
		require.Equal(t, "30s", s.show("fencepost@8", "RestartMaxDelayUSec"))
	}
	s.must("start", "--no-block", "fencepost@8")
	eventually(t, "its last start", func() bool { return starts(log) == restarts+1 })
	requireDelays(t, want, gaps(t, log))

	// The count, by which the delays grow, is still there; an operator takes it away.
	require.Equal(t, fmt.Sprint(restarts), s.show("fencepost@8", "NRestarts"))
	s.must("reset-failed", "fencepost@8")
	require.Equal(t, "0", s.show("fencepost@8", "NRestarts"))
}
