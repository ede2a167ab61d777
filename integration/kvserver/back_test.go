package kvserver_test

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/integration/replicas"
)

// A release is a build, by the versions of data that it knows as dataEnv has them,
// under a generation.
type release struct {
	generation int
	versions   string
}

func (r release) start(t *testing.T, set *replicas.Set) *replicas.Server {
	s, err := set.Start(replicas.Options{Generation: r.generation, Admin: true, Program: os.Args[0], Args: []string{"-drain", "200ms"}, Env: []string{dataEnv + "=" + r.versions}})
	require.NoError(t, err)
	return s
}

// promote has a release take over while clients write to everything there is, and
// returns how long nobody served.
func (r release) promote(t *testing.T, set *replicas.Set, before *replicas.Server) (*replicas.Server, time.Duration) {
	s := r.start(t, set)
	require.NoError(t, s.Until(t.Context(), replicas.Ready), "warm and ready like any other")
	p := replicas.NewPulse(before.Address, s.Address)
	t.Cleanup(p.Stop)
	_, ok := p.Await(time.Time{}, patience)
	require.True(t, ok)
	began := time.Now()
	require.NoError(t, set.Must(t.Context(), "promote", "--generation", strconv.Itoa(r.generation)))
	require.NoError(t, s.Until(t.Context(), replicas.Leading))
	_, ok = p.Await(time.Now(), patience)
	require.True(t, ok)
	p.Stop()
	code, err := before.Exit(t.Context())
	require.NoError(t, err)
	require.Zero(t, code)
	require.Empty(t, p.Unknown())
	return s, slices.Max(p.Gaps(began, 0))
}

func TestGoingBackCostsOnePromotion(t *testing.T) {
	t.Parallel()
	onWholeStores(t, func(t *testing.T, url string) {
		set := newSet(t, url)
		blue := release{1, "1,1"}.start(t, set)
		require.NoError(t, blue.Until(t.Context(), replicas.Leading))
		green, there := release{2, "2,1"}.promote(t, set, blue)
		_, back := release{3, "1,1"}.promote(t, set, green)
		t.Logf("nobody served for %v at the promotion, and for %v on the way back", there.Round(time.Millisecond), back.Round(time.Millisecond))
	})
}

// finding returns the grade and the detail of one check of a preflight, and its exit
// status.
func finding(t *testing.T, set *replicas.Set, check string, args ...string) (grade, detail string, code int) {
	out, code, err := set.Fencepost(t.Context(), append([]string{"preflight", "--json"}, args...)...)
	require.NoError(t, err)
	var report struct {
		Checks []struct{ Name, Grade, Detail string }
	}
	require.NoError(t, json.Unmarshal([]byte(out), &report), out)
	for _, c := range report.Checks {
		if c.Name == check {
			return c.Grade, c.Detail, code
		}
	}
	require.Fail(t, "no such check", "%s in %s", check, out)
	return "", "", code
}

func TestWhatForbidsGoingBackIsShownBeforeAnythingIsStopped(t *testing.T) {
	t.Parallel()
	onWholeStores(t, func(t *testing.T, url string) {
		set := newSet(t, url)
		blue := release{1, "1,1"}.start(t, set)
		require.NoError(t, blue.Until(t.Context(), replicas.Leading))
		grade, detail, code := finding(t, set, "rollback", "--generation", "2", "--data-version", "2", "--readable-by", "2")
		require.Equal(t, "warn", grade, "before the deploy")
		require.Contains(t, detail, "can't come back")
		require.Zero(t, code)
		green, _ := release{2, "2,2"}.promote(t, set, blue)

		grade, detail, code = finding(t, set, "reads the data", "--generation", "3", "--data-version", "1")
		require.Equal(t, "fail", grade, "before the way back")
		require.Contains(t, detail, "2")
		require.Equal(t, 1, code)
		again := release{3, "1,1"}.start(t, set)
		code, err := again.Exit(t.Context())
		require.NoError(t, err)
		require.Equal(t, 78, code)
		require.Equal(t, replicas.Leading, green.Phase(time.Second), "it serves on")
	})
}
