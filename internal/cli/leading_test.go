package cli_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
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
		ended <- lead.Run(ctx, func(ctx context.Context, _ *catalog.Catalog) error {
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
	var serves atomic.Bool
	var lead *leader.Leader
	lead, err = leader.New(store, leader.Config{
		Catalog: catalog.Config{Generation: 1}, Lease: 600 * time.Millisecond,
		Serves: func() error {
			if !serves.Load() {
				return errors.New("the cache is cold")
			}
			return nil
		},
	})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		defer func() { _ = store.Close() }()
		ended <- lead.Run(ctx, func(ctx context.Context, _ *catalog.Catalog) error { <-ctx.Done(); return context.Cause(ctx) })
	}()
	claimed := run(t, on(path), "promote", "--force", "--generation", "1", "--wait", "claim", "--timeout", "30s", "--json")
	require.Equal(t, exitcodes.Success, claimed.code, claimed.stderr)
	require.Nil(t, object(t, claimed.stdout)["serving"])
	require.Eventually(t, func() bool {
		got := run(t, on(path), "promote", "--generation", "1", "--timeout", "400ms")
		return got.code == exitcodes.TempFail && strings.Contains(got.stderr, "the cache is cold")
	}, time.Minute, time.Millisecond)
	serves.Store(true)
	got := run(t, on(path), "promote", "--generation", "1", "--timeout", "30s")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	require.Regexp(t, `(?m)^generation 1 leads and serves: token g1\.e1, `, got.stdout)
	cancel()
	require.NoError(t, <-ended)
}
