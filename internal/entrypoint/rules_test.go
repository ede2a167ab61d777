package entrypoint

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/process"
)

func exited(code exitcodes.Code) ending { return ending{pid: 7, code: code} }

func superseded() ending {
	return ending{pid: 7, record: &exitcodes.Record{Superseded: true, Reason: "superseded: generation 8 leads"}}
}

func defaults() Config { return Config{Command: []string{"true"}}.withDefaults() }

func TestOnlyASupersededChildParks(t *testing.T) {
	require.Equal(t, park, newRules(defaults()).after(superseded()).step)

	cfg := defaults()
	cfg.OnSuperseded = End
	require.Equal(t, finish, newRules(cfg).after(superseded()).step)

	for code := exitcodes.Code(0); code < 256; code++ {
		e := exited(code)
		e.record = &exitcodes.Record{Code: code, Superseded: code != 0}
		after := newRules(defaults()).after(e).step
		require.NotEqual(t, park, after, "code %d", code)
		require.Equal(t, code == 0 || code == 64, after == finish, "code %d", code)
	}
}

func TestAHaltRestartsAtOnceTheFirstTimeAndBacksOffAfterwards(t *testing.T) {
	r := newRules(defaults())
	require.Zero(t, r.after(exited(166)).delay)
	for i := range 8 {
		requireBackOff(t, i, r.after(exited(166)).delay)
	}
}

func TestAnEndByASignalRestartsAtOnceTheFirstTimeAndBacksOffAfterwards(t *testing.T) {
	for _, code := range []exitcodes.Code{129, 137, 139, 192} {
		r := newRules(defaults())
		require.Zero(t, r.after(exited(code)).delay)
		for i := range 8 {
			requireBackOff(t, i, r.after(exited(code)).delay)
		}
		well := exited(code)
		well.uptime = time.Hour
		require.Zero(t, r.after(well).delay, "it was healthy again")
		require.Zero(t, r.after(exited(166)).delay, "halts count for themselves")
	}
}

func TestACrashBacksOffFromTheFirstTime(t *testing.T) {
	for _, code := range []exitcodes.Code{1, 2, 3, 75, 126, 128, 193, 255} {
		r := newRules(defaults())
		for i := range 8 {
			requireBackOff(t, i, r.after(exited(code)).delay)
		}
	}
}

// requireBackOff requires the i-th delay of a back-off from 1 s to 30 s.
func requireBackOff(t *testing.T, i int, delay time.Duration) {
	t.Helper()
	middle := min(time.Second<<i, 30*time.Second)
	require.GreaterOrEqual(t, delay, middle/2, "restart %d", i)
	require.LessOrEqual(t, delay, min(middle+middle/2, 30*time.Second), "restart %d", i)
}

func TestAConfigurationErrorAlwaysWaitsLongest(t *testing.T) {
	r := newRules(defaults())
	for range 3 {
		require.Equal(t, 30*time.Second, r.after(exited(78)).delay)
	}
}

func TestWhatTheMeaningsSayOfRunIsWhatTheRulesDo(t *testing.T) {
	for _, m := range exitcodes.Meanings() {
		run := m.Supervisors[0]
		require.Equal(t, "fencepost run", run.Supervisor)
		if m.Disposition == "-" && m.Code == m.Last {
			require.Contains(t, []exitcodes.Code{process.NotExecutable, process.NotFound}, m.Code)
			require.Equal(t, fmt.Sprintf("ends with %d", m.Code), run.Does, "of run's own start, see the tests with processes")
			continue
		}
		r := newRules(defaults())
		first, second := r.after(exited(m.Code)), r.after(exited(m.Code))
		switch run.Does {
		case "parks if superseded, else ends with 0":
			require.Equal(t, []step{finish, park}, []step{first.step, r.after(superseded()).step})
		case fmt.Sprintf("ends with %d", m.Code):
			require.Equal(t, finish, first.step)
		case "restarts every 30 s":
			require.Equal(t, []decision{{step: restart, delay: 30 * time.Second}, {step: restart, delay: 30 * time.Second}}, []decision{first, second})
		case "restarts at once, then growing delays":
			require.Equal(t, decision{step: restart}, first)
			requireBackOff(t, 0, second.delay)
			require.Equal(t, m.Code == exitcodes.Restart, strings.Contains(run.Note, "five times within ten minutes"))
			require.Equal(t, 5, defaults().HaltBudget)
			require.Equal(t, 10*time.Minute, defaults().HaltWindow)
		case "restarts, growing delays":
			requireBackOff(t, 0, first.delay)
			requireBackOff(t, 1, second.delay)
		default:
			require.Fail(t, "no rule does that", "%d: %s", m.Code, run.Does)
		}
	}
}

func TestAHealthyChildsEarlierEndingsAreForgotten(t *testing.T) {
	r := newRules(defaults())
	for range 2 {
		r.after(exited(166))
	}
	healthy := exited(1)
	healthy.uptime = time.Minute
	requireBackOff(t, 0, r.after(healthy).delay)
	require.Zero(t, r.after(exited(166)).delay, "the first halt again")
	requireBackOff(t, 1, r.after(exited(166)).delay)

	unhealthy := exited(166)
	unhealthy.uptime = time.Minute - 1
	requireBackOff(t, 2, r.after(unhealthy).delay)
}

// well is an ending with code of a child that said READY=1 long ago.
func well(code exitcodes.Code) ending {
	e := exited(code)
	e.uptime, e.spoke, e.ready = time.Hour, true, time.Minute
	return e
}

func TestAChildThatSpeaksIsHealthyByItsReadinessAndASilentOneByItsUptime(t *testing.T) {
	const long = time.Minute
	for _, c := range []struct {
		ending
		healthy bool
	}{
		{ending{uptime: long}, true},
		{ending{uptime: long - 1}, false},
		{ending{uptime: long, spoke: true}, false}, // it never was ready
		{ending{uptime: time.Hour, spoke: true, ready: long - 1}, false},
		{ending{uptime: time.Hour, spoke: true, ready: long}, true},
	} {
		require.Equal(t, c.healthy, c.ending.healthy(long), "%+v", c.ending)
	}
	r := newRules(defaults())
	r.after(exited(166))
	never := well(166)
	never.ready = 0
	requireBackOff(t, 0, r.after(never).delay)
	require.Zero(t, r.after(well(166)).delay)
}

func TestOnlyAsManyHaltsAsTheBudgetHasRestartAtOnceHoweverHealthy(t *testing.T) {
	r := newRules(defaults())
	now := time.Unix(1e9, 0)
	haltAfter := func(d time.Duration) decision {
		now = now.Add(d)
		e := well(166)
		e.at = now
		return r.after(e)
	}
	for range 5 {
		require.Equal(t, "at once", haltAfter(time.Minute).String())
	}
	for i := range 4 {
		d := haltAfter(time.Minute)
		requireBackOff(t, i, d.delay)
		require.Contains(t, d.String(), fmt.Sprintf(": %d halts within 10m", 6+i))
	}
	crash := well(1)
	crash.at = now
	requireBackOff(t, 0, r.after(crash).delay)
	requireBackOff(t, 4, haltAfter(time.Minute).delay)

	require.Equal(t, "at once", haltAfter(6*time.Minute).String(), "four are left of the window, and it is the fifth")
	d := haltAfter(time.Second)
	requireBackOff(t, 0, d.delay)
	require.Contains(t, d.String(), ": 6 halts within 10m")

	require.Equal(t, "at once", haltAfter(10*time.Minute).String())
}

func TestAHaltBeyondTheBudgetWaitsForTheLongerOfItsTwoDelays(t *testing.T) {
	r := newRules(defaults())
	for range 6 {
		r.after(exited(166))
	}
	requireBackOff(t, 5, r.after(exited(166)).delay)
}

// Each is healthy as soon as it is up, and is fenced at once by the other.
func TestTwoEqualsThatFenceEachOtherStayBoundedPerMinute(t *testing.T) {
	r := newRules(defaults())
	start := time.Unix(1e9, 0)
	perMinute := make([]int, 60)
	for now := start; now.Before(start.Add(time.Hour)); {
		perMinute[now.Sub(start)/time.Minute]++
		e := well(166)
		e.at = now
		now = now.Add(r.after(e).delay)
	}
	require.LessOrEqual(t, perMinute[0], 5+8, "the budget, and as many as fit while the delays grow")
	for i, n := range perMinute[1:] {
		require.LessOrEqual(t, n, 4, "minute %d, at half of the longest delay", i+1)
		require.NotZero(t, n, "minute %d: it is never given up", i+1)
	}
}

func TestAfterAStopTheChildsCodeCountsAndDyingOfTheStopIsObeying(t *testing.T) {
	require.Equal(t, exitcodes.Success, ending{signal: syscall.SIGTERM, code: 143}.final())
	require.Equal(t, exitcodes.Success, ending{signal: syscall.SIGINT, code: 130}.final())
	require.Equal(t, exitcodes.Code(137), ending{signal: syscall.SIGKILL, code: 137}.final())
	require.Equal(t, exitcodes.Code(143), exited(143).final())
	require.Equal(t, exitcodes.Restart, exited(166).final())
}

func TestAConfigNamesAllItsMistakesAtOnceAndIsAUsageError(t *testing.T) {
	cfg := Config{OnSuperseded: "sleep", StopGrace: -1, FirstDelay: -2, HaltBudget: -3, HaltWindow: -4}.withDefaults()
	err := cfg.validate()
	for _, mistake := range []string{"no command", `"sleep"`, "stop grace", "first delay", "halt budget is -3", "halt window"} {
		require.ErrorContains(t, err, mistake)
	}
	require.Equal(t, exitcodes.Usage, exitcodes.CodeOf(err))
	require.NoError(t, defaults().validate())
}

func TestAnEndingIsOneLine(t *testing.T) {
	e := exited(166)
	e.record = &exitcodes.Record{Reason: "fenced by epoch\nand more"}
	require.Equal(t, "child 7 exited 166 (fenced by epoch; and more)", fmt.Sprint(e))
	require.Equal(t, "child 7 was killed by signal 9 (killed)", fmt.Sprint(ending{pid: 7, code: 137, signal: 9}))
}
