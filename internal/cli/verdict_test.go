package cli_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/identity"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/leader"
)

// running starts a process of the service in all but name, and returns what stops it.
func running(t *testing.T, path string, cfg leader.Config) (stop func()) {
	t.Helper()
	return runningAs(t, path, cfg, (*leader.Term).Serving)
}

// runningAs runs a process that says once how its work stands.
func runningAs(t *testing.T, path string, cfg leader.Config, say func(*leader.Term)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	store, err := storeurl.Open(ctx, "sqlite:"+path, storeurl.Config{})
	require.NoError(t, err)
	l, err := leader.New(store, cfg)
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = l.Run(ctx, func(ctx context.Context, term *leader.Term) error { say(term); <-ctx.Done(); return nil })
		_ = store.Close()
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

func quick(g generation.Generation, name string) leader.Config {
	return leader.Config{
		Catalog: catalog.Config{Generation: g, Holder: fence.Holder{Name: name, Build: "b"}},
		Lease:   3 * time.Second, // so that a busy machine does not let it expire
	}
}

// verdictOf returns the verdict of a status in JSON, and how the command ended.
func verdictOf(t *testing.T, path string, args ...string) (map[string]any, exitcodes.Code) {
	t.Helper()
	got := run(t, on(path), append([]string{"status", "--json"}, args...)...)
	return object(t, got.stdout)["verdict"].(map[string]any), got.code
}

func awaitState(t *testing.T, path, state string) map[string]any {
	t.Helper()
	var v map[string]any
	require.Eventually(t, func() bool { v, _ = verdictOf(t, path); return v["state"] == state }, time.Minute, 20*time.Millisecond, "%s: %v", state, v)
	return v
}

func TestStatusBeginsWithWhoLeadsAndServesOrThatNobodyDoesAndWhy(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	first := func() string { line, _, _ := strings.Cut(run(t, on(path), "status").stdout, "\n"); return line }
	require.Equal(t, "nobody leads: nobody ever claimed this catalog", first())
	stop := running(t, path, quick(1, "blue"))
	awaitState(t, path, "serving")
	require.Regexp(t, `^blue, build b leads and serves as g1\.e1, since 20[0-9-]+ [0-9:]+ .*\(just now|[0-9]s ago\); its newest heartbeat: (just now|[0-9]s ago) by this clock$`, first())
	stop()
	require.Regexp(t, `^nobody leads, since 20.*: g1\.e1 was claimed by blue, build b: its holder has given it back$`, first())
	require.Contains(t, run(t, on(path), "status").stdout, "\n→ nobody may: no process of generation 1 is ready: start one\n")

	require.Equal(t, exitcodes.Success, run(t, on(path), "fence", "--reason", "drill 7").code)
	require.Regexp(t, `^nobody leads, since 20.*: g1\.e2 was raised by fencepost fence by alice@.*, and no process holds it: drill 7$`, first())

	require.NoError(t, hold(t.Context(), "sqlite:"+path, 2, "green", "", func(*catalog.Catalog) error { return nil }))
	require.Regexp(t, `^green, at 127\.0\.0\.1:6390, build b2 claimed g2\.e3, since 20.*; whether it serves is not known: there is no heartbeat of this claim$`, first())
}

func TestExpectEndsWith0OnlyIfALivingProcessSaysSo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	expect := func(what string, args ...string) (code exitcodes.Code, evidence any) {
		v, code := verdictOf(t, path, append(args, "--expect", what)...)
		return code, v["evidence"]
	}
	requireBoth := func(serving, claimed exitcodes.Code, evidence string) {
		t.Helper()
		for what, want := range map[string]exitcodes.Code{"serving": serving, "claimed": claimed} {
			code, is := expect(what)
			require.Equal(t, want, code, what)
			require.Equal(t, evidence, is, what)
		}
	}
	requireBoth(exitcodes.Failure, exitcodes.Failure, "head")
	stop := running(t, path, quick(1, "blue"))
	awaitState(t, path, "serving")
	requireBoth(exitcodes.Success, exitcodes.Success, "heartbeat")
	stop()
	requireBoth(exitcodes.Failure, exitcodes.Failure, "date")

	cfg := quick(1, "blue")
	cfg.Admin = "127.0.0.1:0"
	stop = runningAs(t, path, cfg, func(term *leader.Term) { term.NotServing("the cache is cold") })
	require.Contains(t, awaitState(t, path, "not serving")["text"], "does not serve")
	require.Eventually(t, func() bool { _, e := expect("claimed"); return e == "answer" }, time.Minute, 20*time.Millisecond)
	requireBoth(exitcodes.Failure, exitcodes.Success, "answer")
	stop()

	require.Equal(t, exitcodes.Success, run(t, on(path), "fence", "--reason", "drill").code)
	requireBoth(exitcodes.Failure, exitcodes.Failure, "head")
	require.Equal(t, exitcodes.Usage, run(t, on(path), "status", "--expect", "ready").code)
}

// gone returns the identity of a process that has ended.
func gone(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	require.NoError(t, cmd.Start())
	p, err := identity.Child(cmd.Process.Pid)
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	return p.String()
}

func TestStatusDoesNotNameAProcessAsHoldingThatTheKernelSaysHasEnded(t *testing.T) {
	t.Parallel()
	path, process := claimed(t), gone(t)
	store, err := storeurl.Open(t.Context(), "sqlite:"+path, storeurl.Config{})
	require.NoError(t, err)
	defer store.Close()
	head, err := store.Head(t.Context())
	require.NoError(t, err)
	board := catalog.NewBoard(store, catalog.Config{})
	beat := func(left bool) {
		t.Helper()
		_, err := catalog.UpdateNote(t.Context(), board, "holder", func(b *leader.Beat) error {
			*b = leader.Beat{Claim: head.Claim.ID, Token: head.Claim.Token, Seq: 5, At: time.Now(), Left: left}
			b.Said = &leader.HolderState{Claim: b.Claim, Seq: b.Seq, Phase: "Leading", Serving: !left, Lease: 3600, Process: process}
			return nil
		})
		require.NoError(t, err)
	}
	beat(true)
	v, _ := verdictOf(t, path)
	require.Equal(t, "left", v["state"], "what it said of its end says more")
	beat(false)
	_, err = catalog.UpdateNote(t.Context(), board, "member/x", func(m *leader.Member) error {
		*m = leader.Member{Name: "standby", Generation: 1, Ready: true, Lease: 3600, At: time.Now(), Process: process}
		return nil
	})
	require.NoError(t, err)

	v, code := verdictOf(t, path, "--expect", "claimed")
	require.Equal(t, []any{"ended", "kernel", exitcodes.Failure}, []any{v["state"], v["evidence"], code})
	require.Contains(t, v["may"], "nobody may: no process of generation 1 is ready", "its standby has ended, too")
	text := run(t, on(path), "status").stdout
	require.Contains(t, text, "left out, as their processes on this host have ended: 1")
	require.NotContains(t, text, "standby")
	for _, wait := range []string{"serving", "claim"} {
		got := run(t, on(path), "promote", "--generation", "1", "--wait", wait, "--timeout", "300ms")
		require.Equal(t, exitcodes.TempFail, got.code, "%s: %s", wait, got.stdout)
		require.NotContains(t, got.stdout, "leads")
		require.Equal(t, wait == "serving", strings.Contains(got.stderr, "--wait claim goes by the claim alone"), got.stderr)
	}
}

func TestAHeartbeatThatIsYoungByItsDateIsNoEvidenceOfALivingProcess(t *testing.T) {
	t.Parallel()
	path := claimed(t)
	beat := func(lease float64) {
		t.Helper()
		store, err := storeurl.Open(t.Context(), "sqlite:"+path, storeurl.Config{})
		require.NoError(t, err)
		defer store.Close()
		head, err := store.Head(t.Context())
		require.NoError(t, err)
		_, err = catalog.UpdateNote(t.Context(), catalog.NewBoard(store, catalog.Config{}), "holder", func(b *leader.Beat) error {
			*b = leader.Beat{Claim: head.Claim.ID, Token: head.Claim.Token, Seq: 5, At: time.Now().Add(time.Hour)}
			b.Said = &leader.HolderState{Claim: b.Claim, Seq: b.Seq, Phase: "Leading", Serving: true, Lease: lease}
			return nil
		})
		require.NoError(t, err)
	}
	beat(0.3)
	v, code := verdictOf(t, path)
	require.Equal(t, []any{"serving", "date", exitcodes.Success}, []any{v["state"], v["evidence"], code}, "without --expect, by the date")
	got := run(t, on(path), "status", "--expect", "serving")
	require.Equal(t, exitcodes.Failure, got.code, "no second heartbeat came within a lease")
	require.Regexp(t, `(?m)^expected serving: no: no heartbeat of g1\.e1 came while this command looked`, got.stdout)
	beat(3600)
	got = run(t, on(path), "status", "--expect", "claimed", "--timeout", "300ms")
	require.Equal(t, exitcodes.TempFail, got.code, "a lease is longer than the command had")
	require.Contains(t, got.stdout, "expected claimed: not known in time: ")
}

func TestWhatIsRefusedForGoodIsNotToBeSaidAgain(t *testing.T) {
	t.Parallel()
	path := claimed(t)
	got := run(t, on(path), "abort", "--generation", "9223372036854775000")
	require.Equal(t, exitcodes.Failure, got.code)
	require.Contains(t, got.stderr, "generation 9223372036854775000 is not given up: generation: too few numbers are left above it")
	require.NotContains(t, got.stderr, "say it again")
	got = run(t, on(path), "fence", "--reason", "a\xffb")
	require.Equal(t, exitcodes.Usage, got.code, got.stderr)
	require.Contains(t, got.stderr, "of UTF-8")
}

func TestAStepDownAtAWrongAddressSaysWhereTheRightOneStands(t *testing.T) {
	t.Parallel()
	stranger := httptest.NewServer(http.NotFoundHandler())
	address := stranger.Listener.Addr().String()
	got := run(t, nil, "step-down", "--admin", address)
	require.Equal(t, exitcodes.Failure, got.code)
	require.Contains(t, got.stderr, address+" answers 404 Not Found: it is no admin API of a process that leads")
	stranger.Close()
	got = run(t, nil, "step-down", "--admin", address)
	require.Equal(t, exitcodes.Failure, got.code)
	require.Contains(t, got.stderr, "refused: give the process's admin address, which `fencepost status` shows")
}

func TestStatusShowsEveryMemberAndWhoMayLead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := quick(1, "blue")
	blue.Admin = "127.0.0.1:0"
	stop := running(t, path, blue)
	awaitState(t, path, "serving")
	running(t, path, quick(2, "green\x1b[2J"))
	var members []any
	find := func(of func(map[string]any) bool) bool {
		members = object(t, run(t, on(path), "status", "--json").stdout)["members"].([]any)
		for _, m := range members {
			if of(m.(map[string]any)) {
				return true
			}
		}
		return false
	}
	require.Eventually(t, func() bool {
		return find(func(m map[string]any) bool { return m["ready"] == true && m["generation"] == 2.0 })
	}, time.Minute, 20*time.Millisecond)
	require.True(t, find(func(m map[string]any) bool {
		return m["name"] == "blue" && m["answered"] == true && m["behind"] == 0.0 && m["serving"] == true && m["token"] == "g1.e1"
	}), "%v", members)
	require.True(t, find(func(m map[string]any) bool {
		return m["answered"] == false && m["behind"] == nil && m["phase"] == "ReadyToPromote" && m["reason"] != ""
	}), "%v", members)
	text := run(t, on(path), "status").stdout
	require.NotContains(t, text, "\x1b")
	require.Regexp(t, `(?m)^blue +1 +b +Leading +.* serves +0 +.+$`, text)
	require.Regexp(t, `(?m)^"green\\x1b\[2J" +2 +b +ReadyToPromote +.* yes +was at 1 (just now|[0-9]+s ago) +generation 2 is not promoted.*$`, text)
	stop()
	require.Contains(t, awaitState(t, path, "left")["may"], "nobody may: no process of generation 1 is ready, and generation 2, which is, was not promoted: fencepost promote --generation 2")
}

func TestAMemberIsAskedOnItsOwnHostOnlyAndAnotherProcessDoesNotAnswerForIt(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	cfg := quick(1, "blue")
	cfg.Admin = "127.0.0.1:0"
	running(t, path, cfg)
	awaitState(t, path, "serving")
	store, err := storeurl.Open(t.Context(), "sqlite:"+path, storeurl.Config{})
	require.NoError(t, err)
	defer store.Close()
	var m leader.Member
	require.Eventually(t, func() bool {
		list, err := leader.ReadMembers(t.Context(), store, catalog.Config{})
		require.NoError(t, err)
		if len(list.Members) == 1 {
			m = list.Members[0]
		}
		return m.Serving
	}, time.Minute, 20*time.Millisecond)
	now, asked := m.Ask(t.Context())
	require.True(t, asked)
	require.Equal(t, m.Token, now.Token)
	for name, change := range map[string]func(*leader.Member){
		"another process at its address": func(m *leader.Member) { m.ID = driver.NewID().String() },
		"another host":                   func(m *leader.Member) { m.Host = "elsewhere" },
		"a host that is not known":       func(m *leader.Member) { m.Host = "" },
		"no address":                     func(m *leader.Member) { m.Admin = "" },
		"an address of others":           func(m *leader.Member) { m.Admin = "192.0.2.1:80" },
		"an address with a path":         func(m *leader.Member) { m.Admin += "/x?" },
	} {
		other := m
		change(&other)
		_, asked := other.Ask(t.Context())
		require.False(t, asked, name)
	}
}
