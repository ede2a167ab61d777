package postgres

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/step"
	"github.com/fencepost/fencepost/internal/testpg"
)

// TestAProcessThatStopsWhileItHoldsAGuardsLocksKeepsNobodyOut has one stop, as by
// SIGSTOP or behind a cut network, in each transaction that locks out writers.
func TestAProcessThatStopsWhileItHoldsAGuardsLocksKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	tokenOf := func(g generation.Generation) fence.Token { return fence.Token{Generation: g, Epoch: 1} }
	for name, holds := range map[string]func(ctx context.Context, r *Register) error{
		"raise": func(ctx context.Context, r *Register) error { return r.Raise(ctx, tokenOf(2), fence.Holder{}) },
		"proof": func(ctx context.Context, r *Register) error { return r.Prove(ctx, tokenOf(2)) },
		"install": func(ctx context.Context, r *Register) error {
			return r.store.tryDDL(ctx, func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, `lock table fencepost.token in access exclusive mode`)
				step.Reach(ctx, step.RegisterWritten)
				return err
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := testpg.URL(t)
			r := func(idle time.Duration) *Register {
				r, err := OpenRegister(t.Context(), dsn, Config{ClaimIdle: idle})
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, r.Close()) })
				return r
			}
			next := r(0)
			require.NoError(t, next.Raise(drivertest.Context(t), tokenOf(1), fence.Holder{}))
			stopped, resume, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			stops := step.With(drivertest.Context(t), func(step.Point) {
				close(stopped)
				<-resume
			})
			stopping := r(300 * time.Millisecond)
			goOn := sync.OnceFunc(func() { close(resume) })
			t.Cleanup(goOn)
			for reached := false; !reached; { // a busy machine may be idle for so long before
				go func() { ended <- holds(stops, stopping) }()
				select {
				case <-stopped:
					reached = true
				case <-ended:
				}
			}
			bounded, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			require.NoError(t, next.Raise(bounded, tokenOf(3), fence.Holder{}), "the server has ended what holds the lock")
			goOn()
			if err := <-ended; name != "proof" {
				require.Error(t, err, "nothing of it has landed")
			}
			state, err := next.State(drivertest.Context(t))
			require.NoError(t, err)
			require.Equal(t, tokenOf(3), state.Token)
		})
	}
}

func TestARaiseThatIsBlockedNamesWhoBlocksIt(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	r, err := OpenRegister(t.Context(), dsn, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	require.NoError(t, r.Raise(drivertest.Context(t), fence.Token{Generation: 1, Epoch: 1}, fence.Holder{}))
	conn := testpg.Connect(t, testpg.With(t, dsn, func(u *url.URL) { u.RawQuery += "&application_name=maintenance" }))
	_, err = conn.Exec(t.Context(), `begin; select from fencepost.token for update`)
	require.NoError(t, err)
	for wait := time.Second; ; wait *= 2 { // a busy machine may take longer to ask
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		err = r.Raise(ctx, fence.Token{Generation: 2, Epoch: 2}, fence.Holder{})
		cancel()
		require.Error(t, err)
		if named := errors.Is(err, driver.ErrBlocked) && !strings.Contains(err.Error(), "can't be told"); named || wait > 30*time.Second {
			break
		}
	}
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.ErrorContains(t, err, `(application "maintenance"`)
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
}
