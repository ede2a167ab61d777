package entrypoint

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

func exited(code exitcodes.Code) ending { return ending{pid: 7, code: code} }

func superseded() ending {
	return ending{pid: 7, record: &exitcodes.Record{Superseded: true, Reason: "superseded: generation 8 leads"}}
}

func defaults() Config { return Config{Command: []string{"true"}}.withDefaults() }

func TestOnlyASupersededChildParks(t *testing.T) {
	after, _ := newRules(defaults()).after(superseded())
	require.Equal(t, park, after)

	cfg := defaults()
	cfg.OnSuperseded = End
	after, _ = newRules(cfg).after(superseded())
	require.Equal(t, finish, after)

	for code := exitcodes.Code(0); code < 256; code++ {
		e := exited(code)
		e.record = &exitcodes.Record{Code: code, Superseded: code != 0}
		after, _ := newRules(defaults()).after(e)
		require.NotEqual(t, park, after, "code %d", code)
		require.Equal(t, code == 0 || code == 64, after == finish, "code %d", code)
	}
}

func TestAHaltRestartsAtOnceTheFirstTimeAndBacksOffAfterwards(t *testing.T) {
	r := newRules(defaults())
	_, delay := r.after(exited(166))
	require.Zero(t, delay)
	for i := range 8 {
		_, delay = r.after(exited(166))
		requireBackOff(t, i, delay)
	}
}

func TestACrashBacksOffFromTheFirstTime(t *testing.T) {
	for _, code := range []exitcodes.Code{1, 2, 3, 75, 126, 137, 139, 255} {
		r := newRules(defaults())
		for i := range 8 {
			_, delay := r.after(exited(code))
			requireBackOff(t, i, delay)
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
		_, delay := r.after(exited(78))
		require.Equal(t, 30*time.Second, delay)
	}
}

func TestAHealthyChildsEarlierEndingsAreForgotten(t *testing.T) {
	r := newRules(defaults())
	for range 8 {
		r.after(exited(166))
	}
	healthy := exited(1)
	healthy.uptime = time.Minute
	_, delay := r.after(healthy)
	requireBackOff(t, 0, delay)
	_, delay = r.after(exited(166))
	require.Zero(t, delay, "the first halt again")
	_, delay = r.after(exited(166))
	requireBackOff(t, 1, delay)

	unhealthy := exited(166)
	unhealthy.uptime = time.Minute - 1
	_, delay = r.after(unhealthy)
	requireBackOff(t, 2, delay)
}

func TestAfterAStopTheChildsCodeCountsAndDyingOfTheStopIsObeying(t *testing.T) {
	require.Equal(t, exitcodes.Success, ending{signal: syscall.SIGTERM, code: 143}.final())
	require.Equal(t, exitcodes.Success, ending{signal: syscall.SIGINT, code: 130}.final())
	require.Equal(t, exitcodes.Code(137), ending{signal: syscall.SIGKILL, code: 137}.final())
	require.Equal(t, exitcodes.Code(143), exited(143).final())
	require.Equal(t, exitcodes.Restart, exited(166).final())
}

func TestAConfigNamesAllItsMistakesAtOnceAndIsAUsageError(t *testing.T) {
	cfg := Config{OnSuperseded: "sleep", StopGrace: -1, FirstDelay: -2}.withDefaults()
	err := cfg.validate()
	for _, mistake := range []string{"no command", `"sleep"`, "stop grace", "first delay"} {
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
