package leader_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/leader"
)

// A record is a log as it was written so far.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

// errors are the lines at error level.
func (r *record) errors() (lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(r.text.String()) {
		if strings.Contains(line, "level=ERROR") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestAHolderThatCannotWriteSaysSoAtErrorLevelForAsLongAsThatLasts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, log := memory.New(), &record{}
		handle := store.Open()
		cfg := config(1)
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
		p := start(t, handle, cfg)
		p.await(t, leader.Leading)
		handle.Inject(refuse)
		elapse(time.Second) // a renewal that is tried again succeeds in time
		handle.Inject(nil)
		elapse(time.Minute)
		require.Empty(t, log.errors(), "a moment is no alarm")
		handle.Inject(func(c memory.Call) memory.Fault { // reads go on
			if c.Method == "Post" || c.Method == "Append" {
				return memory.Refuse
			}
			return memory.Pass
		})
		elapse(6 * time.Second)
		first := log.errors()
		require.Len(t, first, 1)
		require.Regexp(t, `this process has claimed g1\.e1, and could not renew its lease for 2\.\d+s: .*an injected fault`, first[0])
		elapse(10 * time.Minute)
		require.Greater(t, len(log.errors()), 5, "as long as it lasts")
		require.Less(t, len(log.errors()), 12, "with growing distance")
		handle.Inject(nil)
		p.await(t, leader.Leading)
		elapse(3 * time.Second)
		require.Contains(t, log.text.String(), "the alarm has ended")
		require.NoError(t, p.end(t))
	})
}

func TestAProcessWhoseClaimIsBlockedIsNotReadyAndSaysWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, log := memory.New(), &record{}
		blue := start(t, store.Open(), config(1))
		blue.await(t, leader.Leading)
		mine := store.Open()
		cfg := config(2)
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
		green := start(t, mine, cfg)
		green.await(t, leader.ReadyToPromote)
		mine.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Claim" {
				return memory.Refuse
			}
			return memory.Pass
		})
		promote(t, store, 2)
		elapse(5 * time.Second)
		s := green.Status()
		require.Equal(t, leader.Promoting, s.Phase)
		require.False(t, s.Ready)
		require.Regexp(t, "^the claim does not succeed: .*an injected fault", s.Reason)
		require.Regexp(t, "this process could lead, and its claim does not succeed: .*an injected fault", log.errors()[0])
		mine.Inject(nil)
		began := time.Now()
		green.await(t, leader.Leading)
		require.Less(t, time.Since(began), 500*time.Millisecond)
		require.Contains(t, log.text.String(), "the alarm has ended")
		require.True(t, green.Status().Ready)
		require.NoError(t, green.end(t))
	})
}

// Each claim is given up when its time is over, and begun anew.
func TestAClaimThatIsBlockedForLongIsOneAlarmAndNotReadyUntilItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, log := memory.New(), &record{}
		mine := store.Open()
		mine.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Claim" {
				return memory.Refuse
			}
			return memory.Pass
		})
		cfg := config(1)
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
		p := start(t, mine, cfg)
		elapse(3 * time.Second)
		for range 600 {
			s := p.Status()
			require.False(t, s.Ready, "%v: %s", s.Phase, s.Reason)
			require.Contains(t, s.Reason, "the claim does not succeed: ")
			elapse(time.Second)
		}
		require.Greater(t, len(log.errors()), 5, "as long as it lasts")
		require.Less(t, len(log.errors()), 14, "with growing distance")
		require.NotContains(t, log.text.String(), "the alarm has ended")
		mine.Inject(nil)
		p.await(t, leader.Leading)
		require.Contains(t, log.text.String(), "the alarm has ended")
		require.NoError(t, p.end(t))
	})
}

// Nobody asked for the token who would fence the holder.
func TestWorkThatDoesNotEndForAStepDownIsAnAlarmUntilItDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, hung := &record{}, make(chan struct{})
		cfg := config(1)
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
		p := run(t, memory.New(), cfg, func(ctx context.Context, _ *leader.Term) error {
			<-ctx.Done()
			<-hung
			return nil
		})
		p.await(t, leader.Leading)
		require.Error(t, p.StepDown(t.Context(), leader.StepDownOptions{Force: true}))
		elapse(10 * time.Minute)
		require.Equal(t, leader.HandingOver, p.Status().Phase)
		lines := log.errors()
		require.Greater(t, len(lines), 4, "as long as it lasts")
		require.Less(t, len(lines), 9, "with growing distance")
		require.Contains(t, lines[0], "the work was to have ended at 2000-01-01T00:00:05Z, and nobody serves until it does: leader: another process is about to take over")
		close(hung)
		p.await(t, leader.Leading)
		require.Contains(t, log.text.String(), "the alarm has ended")
		require.NoError(t, p.end(t))
	})
}

// Another session holds the lock that a claim needs: the store waits, and says nothing.
func TestAProcessWhoseClaimWaitsForAnotherSessionIsNotReadyWithinASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, log := memory.New(), &record{}
		holder := start(t, store.Open(), config(1))
		holder.await(t, leader.Leading)
		cfg := config(1)
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
		standby := start(t, store.Open(), cfg)
		standby.await(t, leader.ReadyToPromote)
		blocker, err := store.Open().Claim(t.Context())
		require.NoError(t, err)
		require.NoError(t, holder.end(t))
		elapse(1200 * time.Millisecond)
		for range 3 { // the store bounds a claim that is under way
			s := standby.Status()
			require.False(t, s.Ready, "%v: %s", s.Phase, s.Reason)
			require.Contains(t, s.Reason, "the claim does not succeed: ")
			elapse(time.Second)
		}
		require.Contains(t, log.errors()[0], "the claim waits: another session may hold what it needs, since 2000-01-01T00:00:")
		blocker.Abandon()
		began := time.Now()
		standby.await(t, leader.Leading)
		require.Less(t, time.Since(began), 500*time.Millisecond)
		require.True(t, standby.Status().Ready)
		require.NoError(t, standby.end(t))
	})
}
