package app

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testpipe"
)

// startUnread runs the program while nobody reads its log.
func startUnread(t *testing.T, store string, g generation.Generation) *process {
	_, full := testpipe.Full(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	ctx, stop := context.WithCancelCause(context.WithoutCancel(t.Context()))
	p := &process{stop: stop, done: make(chan error, 1), address: ln.Addr().String()}
	go func() {
		p.done <- run(ctx, flags{store: store, generation: g, listen: p.address, name: g.String(), autoPromote: true}, Options{}, logTo(full))
	}()
	t.Cleanup(func() { stop(exitcodes.ErrStopRequested) })
	return p
}

func TestADeployAndAFailoverGoOnThoughNobodyReadsTheLog(t *testing.T) {
	t.Parallel()
	store := "sqlite:" + filepath.Join(t.TempDir(), "kv.db")
	blue := startUnread(t, store, 1)
	blue.eventually(t, "SET a 1", "+OK")
	green := startUnread(t, store, 2)
	green.eventually(t, "INCR a", ":2")
	require.ErrorIs(t, <-blue.done, fence.ErrSuperseded)
	twin := startUnread(t, store, 2)
	green.stop(exitcodes.ErrStopRequested)
	require.NoError(t, <-green.done)
	twin.eventually(t, "INCR a", ":3")
	twin.stop(exitcodes.ErrStopRequested)
	require.NoError(t, <-twin.done)
}
