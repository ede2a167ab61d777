package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
)

// A risky store tells of risks as a test wants.
type risky struct {
	driver.Store
	asked atomic.Int64
	tell  func(context.Context) ([]driver.Finding, error)
}

func (r *risky) Risks(ctx context.Context) ([]driver.Finding, error) {
	r.asked.Add(1)
	return r.tell(ctx)
}

// A journal is a log that may be written and read at the same time.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) warnings() (lines []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.text.String()) {
		if strings.Contains(line, "level=WARN") {
			lines = append(lines, line)
		}
	}
	return lines
}

// logged returns a configuration of generation 1, and what it logs.
func logged() (catalog.Config, *journal) {
	j := &journal{}
	cfg := ready(1, "")
	cfg.Logger = slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return cfg, j
}

func TestWhatCouldLoseACommitIsSaidAloudOnceForEachHolder(t *testing.T) {
	asked := make(chan struct{}, 1)
	store := &risky{Store: memory.New(), tell: func(context.Context) ([]driver.Finding, error) {
		defer func() { asked <- struct{}{} }()
		return []driver.Finding{
			{Name: "fail-over", Grade: driver.Warning, Detail: "1 server streams", Remedy: "wait for it"},
			{Name: "durability", Grade: driver.Failure, Detail: "fsync=off", Remedy: "set it"},
		}, nil
	}}
	cfg, j := logged()
	c, err := catalog.Open(t.Context(), store, cfg)
	require.NoError(t, err)
	<-asked
	require.NoError(t, c.Close())
	require.Len(t, j.warnings(), 2)
	for i, parts := range [][]string{{"check=fail-over", `found="1 server streams"`, `remedy="wait for it"`}, {"check=durability", `found="fsync=off"`}} {
		for _, part := range append(parts, "could lose an acknowledged commit", "store=memory") {
			require.Contains(t, j.warnings()[i], part)
		}
	}

	f, err := catalog.Follow(t.Context(), store, cfg)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = catalog.Raise(t.Context(), store, cfg, catalog.RaiseOptions{Reason: "test"})
	require.NoError(t, err)
	require.EqualValues(t, 1, store.asked.Load(), "who follows, and a tool, is not told")
}

func TestOpenDoesNotWaitForRisksAndCloseEndsTheAsking(t *testing.T) {
	asked, returned := make(chan struct{}), make(chan error, 1)
	store := &risky{Store: memory.New(), tell: func(ctx context.Context) ([]driver.Finding, error) {
		close(asked)
		_, bounded := ctx.Deadline()
		<-ctx.Done()
		if !bounded {
			returned <- errors.New("it is asked without a deadline")
		}
		returned <- context.Cause(ctx)
		return nil, ctx.Err()
	}}
	cfg, j := logged()
	c, err := catalog.Open(t.Context(), store, cfg)
	require.NoError(t, err)
	<-asked
	require.NoError(t, c.Confirm(t.Context()))
	require.NoError(t, c.Close())
	require.Len(t, returned, 1, "Close has joined it")
	require.ErrorIs(t, <-returned, context.Canceled)
	require.Empty(t, j.warnings())
}
