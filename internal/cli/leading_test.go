package cli_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/leader"
)

// serving starts a process of generation g in all but name, and returns what
// its end says.
func serving(ctx context.Context, t *testing.T, url string, g generation.Generation, auto bool) <-chan error {
	t.Helper()
	store, err := storeurl.Open(ctx, url, storeurl.Config{})
	require.NoError(t, err)
	lead, err := leader.New(store, leader.Config{
		Catalog:     catalog.Config{Generation: g, Holder: fence.Holder{Name: "server " + g.String()}},
		Admin:       "127.0.0.1:0",
		AutoPromote: auto,
	})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		defer func() { _ = store.Close() }()
		ended <- lead.Run(ctx, func(ctx context.Context, term *leader.Term) error {
			term.Serving()
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	return ended
}

func TestPromoteReplacesAServerThatLeadsByTheNextOne(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := serving(ctx, t, "sqlite:"+path, 1, true)
	got := run(t, on(path), "promote", "--force", "--generation", "1", "--timeout", "30s")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)

	green := serving(ctx, t, "sqlite:"+path, 2, false)
	answer := object(t, run(t, on(path), "promote", "--force", "--generation", "2", "--timeout", "30s", "--json").stdout)
	require.Equal(t, "g2.e2", answer["token"])
	require.Equal(t, true, answer["leading"])
	require.Equal(t, true, answer["serving"])
	require.Equal(t, exitcodes.GracefulExit, exitcodes.Of(<-blue))

	// The first heartbeat of green may come after its claim.
	require.Eventually(t, func() bool {
		beat, ok := object(t, run(t, on(path), "status", "--json").stdout)["heartbeat"].(map[string]any)
		return ok && beat["current"] == true
	}, time.Minute, 50*time.Millisecond)
	status := run(t, on(path), "status")
	require.Regexp(t, `(?m)^heartbeat +(just now|[0-9]+s ago), admin at 127\.0\.0\.1:[0-9]+$`, status.stdout)
	require.Regexp(t, `(?m)^promotion +generation 2 by alice@.*: it leads$`, status.stdout)
	cancel()
	require.NoError(t, <-green)
}

func TestAHeartbeatOfAnEarlierHolderIsSaidToBeOne(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path := filepath.Join(t.TempDir(), "c.db")
	blue := serving(ctx, t, "sqlite:"+path, 1, true)
	require.Eventually(t, func() bool {
		return object(t, run(t, on(path), "status", "--json").stdout)["heartbeat"] != nil
	}, time.Minute, 50*time.Millisecond)
	cancel()
	require.NoError(t, <-blue)
	require.NoError(t, hold(t.Context(), "sqlite:"+path, 2, "green", "", func(*catalog.Catalog) error { return nil }))
	require.Regexp(t, `(?m)^heartbeat +.*, of an earlier holder$`, run(t, on(path), "status").stdout)
}

// The work leads at once, and serves only once the test says so.
func TestPromoteWaitsUntilTheGenerationServesAndNotOnlyLeads(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path := filepath.Join(t.TempDir(), "c.db")
	store, err := storeurl.Open(ctx, "sqlite:"+path, storeurl.Config{})
	require.NoError(t, err)
	warm := make(chan struct{})
	var lead *leader.Leader
	lead, err = leader.New(store, leader.Config{
		Catalog: catalog.Config{Generation: 1}, Lease: 600 * time.Millisecond,
	})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		defer func() { _ = store.Close() }()
		ended <- lead.Run(ctx, func(ctx context.Context, term *leader.Term) error {
			term.NotServing("the cache is cold")
			<-warm
			term.Serving()
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	claimed := run(t, on(path), "promote", "--force", "--generation", "1", "--wait", "claim", "--timeout", "30s", "--json")
	require.Equal(t, exitcodes.Success, claimed.code, claimed.stderr)
	require.Nil(t, object(t, claimed.stdout)["serving"])
	require.Eventually(t, func() bool {
		got := run(t, on(path), "promote", "--generation", "1", "--timeout", "400ms")
		return got.code == exitcodes.TempFail && strings.Contains(got.stderr, "the cache is cold")
	}, time.Minute, time.Millisecond)
	close(warm)
	got := run(t, on(path), "promote", "--generation", "1", "--timeout", "30s")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	require.Regexp(t, `(?m)^generation 1 leads and serves: token g1\.e1, `, got.stdout)
	cancel()
	require.NoError(t, <-ended)
}

func TestAPromotionThatWaitsForAnIdleMomentChangesNothingUntilThereIsOne(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	words := make(chan *leader.Term, 1)
	stop := runningAs(t, path, quick(1, "blue"), func(term *leader.Term) {
		term.Serving()
		words <- term
	})
	defer stop()
	term := <-words
	idle := term.Busy("a nightly export")
	require.Eventually(t, func() bool {
		verdict, _ := verdictOf(t, path)
		return verdict["busy"] == "a nightly export" && strings.HasSuffix(verdict["text"].(string), "; busy with a nightly export")
	}, time.Minute, 20*time.Millisecond)
	promote := func(args ...string) ran {
		return run(t, on(path), append([]string{"promote", "--generation", "2", "--force", "--no-wait", "--when-idle"}, args...)...)
	}
	var got ran
	require.Eventually(t, func() bool { // a busy machine may not read the store in that time
		got = promote("--within", "400ms")
		require.Equal(t, exitcodes.TempFail, got.code)
		return !strings.Contains(got.stderr, "the store could not be read")
	}, time.Minute, time.Millisecond)
	require.Contains(t, got.stdout, "waits for a moment without work under way: blue")
	require.Regexp(t, `generation 2 is not promoted, and nothing was changed: no moment without work under way came within 400ms: blue.* is busy with a nightly export`, got.stderr)
	require.Regexp(t, `(?m)^promotion +none$`, run(t, on(path), "status").stdout)

	got = run(t, on(path), "promote", "--generation", "7", "--when-idle", "--within", "1h")
	require.Contains(t, got.stderr, "generation 7 is not promoted: leader: generation 7 was never handed out", "nobody waits for that")
	require.Equal(t, exitcodes.Success, run(t, on(path), "promote", "--generation", "1", "--when-idle", "--within", "1h").code, "it leads")
	ended := make(chan ran, 1)
	go func() {
		ended <- run(t, on(path), "promote", "--generation", "5", "--force", "--no-wait", "--when-idle", "--within", "1h")
	}()
	require.Equal(t, exitcodes.Success, run(t, on(path), "abort", "--generation", "5").code)
	got = <-ended
	require.NotEqual(t, exitcodes.Success, got.code)
	require.Contains(t, got.stderr, "generation 5 is not promoted: ", "an abort ends the wait")

	go func() { ended <- promote("--within", "1m") }()
	idle()
	got = <-ended
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	require.Contains(t, got.stdout, "generation 2 is promoted")

	require.Equal(t, exitcodes.Usage, run(t, on(path), "promote", "--generation", "3", "--within", "1m").code)
	require.Equal(t, exitcodes.Usage, promote("--within", "0s").code)
}
