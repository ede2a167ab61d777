package cli_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/leader"
)

// answering starts a process of generation 2 on a catalog of generation 1, and
// returns its admin address.
func answering(ctx context.Context, t *testing.T, path string) string {
	t.Helper()
	store, err := storeurl.Open(ctx, "sqlite:"+path, storeurl.Config{})
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.2:0") // where no other test, and no client, takes a port
	require.NoError(t, err)
	address := ln.Addr().String()
	require.NoError(t, ln.Close())
	lead, err := leader.New(store, leader.Config{Catalog: catalog.Config{Generation: 2}, Admin: address})
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = lead.Run(ctx, func(ctx context.Context, term *leader.Term) error { term.Serving(); <-ctx.Done(); return nil })
		_ = store.Close()
	}()
	t.Cleanup(func() { <-ended })
	return address
}

func TestHealthAnswersThreeQuestionsApart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	path := claimed(t)
	address := answering(ctx, t, path)
	t.Cleanup(cancel)
	healthy := func(question string) ran { return run(t, nil, "health", question, "--admin", address) }
	require.Eventually(t, func() bool { return healthy("standby").code == exitcodes.Success }, time.Minute, 10*time.Millisecond)
	require.Equal(t, "ReadyToPromote: generation 2 is not promoted\n", healthy("live").stdout)
	got := healthy("leader")
	require.Equal(t, exitcodes.Failure, got.code)
	require.Equal(t, "fencepost: not leader: 503 Service Unavailable: ReadyToPromote: generation 2 is not promoted\n", got.stderr)

	require.Equal(t, exitcodes.Success, run(t, on(path), "promote", "--generation", "2", "--timeout", "30s").code)
	require.Eventually(t, func() bool { return healthy("leader").code == exitcodes.Success }, time.Minute, 10*time.Millisecond)
	require.Equal(t, exitcodes.Success, healthy("standby").code)
	yes := object(t, run(t, map[string]string{"FENCEPOST_ADMIN": address}, "health", "leader", "--json").stdout)
	require.Equal(t, true, yes["healthy"])
}

func TestHealthOfNobodyIsNo(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.2:0") // where no other test, and no client, takes a port
	require.NoError(t, err)
	address := ln.Addr().String()
	require.NoError(t, ln.Close())
	require.Equal(t, exitcodes.Failure, run(t, nil, "health", "live", "--admin", address).code)

	// One that accepts and never answers: a server that hangs.
	hung, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer hung.Close()
	require.Equal(t, exitcodes.Failure, run(t, nil, "health", "live", "--admin", hung.Addr().String(), "--timeout", "50ms").code)

	for _, args := range [][]string{{"health", "live"}, {"health"}, {"health", "well", "--admin", "127.0.0.1:1"}} {
		require.Equal(t, exitcodes.Usage, run(t, nil, args...).code, args)
	}
}
