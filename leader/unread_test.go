package leader_test

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// An unread is everything that a process says to, while nobody reads it.
type unread struct{ read chan struct{} }

func (u unread) Write(p []byte) (int, error) {
	<-u.read
	return len(p), nil
}

// mute returns a Config in which each outlet blocks until u is read.
func (u unread) mute(g generation.Generation) leader.Config {
	cfg := config(g)
	cfg.Logger = slog.New(slog.NewTextHandler(u, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Catalog.Logger = slog.New(slog.NewTextHandler(u, nil))
	cfg.Notify = func(...string) error { <-u.read; return nil }
	cfg.Changed = func(leader.Status) { <-u.read }
	return cfg
}

func TestNoDecisionAndNoEndWaitsForALogAServiceManagerOrACallback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := unread{make(chan struct{})}
		store := memory.New()
		blue := start(t, store, u.mute(1))
		blue.await(t, leader.Leading)
		green := start(t, store, u.mute(2))
		green.await(t, leader.ReadyToPromote)
		_, err := leader.Promote(t.Context(), store, catalog.Config{}, 2, leader.PromoteOptions{By: "test", Force: true})
		require.NoError(t, err)
		promoted := time.Now()
		require.ErrorIs(t, <-blue.ended, fence.ErrSuperseded)
		green.await(t, leader.Leading)
		require.Less(t, time.Since(promoted), time.Second)

		// Another one of its generation takes over.
		twin := start(t, store, u.mute(2))
		twin.await(t, leader.ReadyToPromote)
		stopping := time.Now()
		require.NoError(t, green.end(t))
		require.LessOrEqual(t, time.Since(stopping), 300*time.Millisecond)
		twin.await(t, leader.Leading)
		require.NoError(t, twin.end(t))
		close(u.read)
		synctest.Wait()
	})
}

func TestWhatIsReadIsSaidInOrderAndWholeByTheEndOfRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var changes []leader.Phase
		cfg := config(1)
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		cfg.Changed = func(s leader.Status) {
			if n := len(changes); n == 0 || changes[n-1] != s.Phase {
				changes = append(changes, s.Phase)
			}
			elapse(10 * time.Millisecond)
		}
		p := start(t, memory.New(), cfg)
		p.await(t, leader.Leading)
		require.NoError(t, p.end(t))
		changes = slices.DeleteFunc(changes, func(p leader.Phase) bool { return p == leader.Draining }) // its work may end before anybody looks
		require.Equal(t, []leader.Phase{leader.CatchingUp, leader.ReadyToPromote, leader.Promoting, leader.Leading, leader.Stopped}, changes)
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		require.Contains(t, lines[len(lines)-1], "to=Stopped")
	})
}
