package leader_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/leader"
)

// A veiled store shows the same head until the veil is lifted.
type veiled struct {
	driver.Store
	veil    atomic.Pointer[driver.Head]
	beaten  atomic.Bool
	renewed chan struct{} // closed by the look at the head that follows a heartbeat
	once    sync.Once
}

func (v *veiled) Head(ctx context.Context) (driver.Head, error) {
	if v.beaten.Load() {
		defer v.once.Do(func() { close(v.renewed) })
	}
	if head := v.veil.Load(); head != nil {
		return *head, nil
	}
	return v.Store.Head(ctx)
}

func (v *veiled) Post(ctx context.Context, n driver.Note) (int64, error) {
	version, err := v.Store.Post(ctx, n)
	if n.Key == "holder" {
		v.beaten.Store(true)
	}
	return version, err
}

// TestWorkThatAGuardRefusedEndsAsTheHeadSays hides the claim from all that look for one
// while the work is under way, and lets nobody look again for long: only the refusal
// can make the process look.
func TestWorkThatAGuardRefusedEndsAsTheHeadSays(t *testing.T) {
	t.Parallel()
	for name, claimed := range map[string]bool{"a newer generation has claimed": true, "nobody has claimed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memory.New()
			cfg := called(1)
			cfg.Poll, cfg.Lease = time.Minute, 10*time.Minute
			mine := &veiled{Store: store.Open(), renewed: make(chan struct{})}
			l, err := leader.New(mine, cfg)
			require.NoError(t, err)
			err = l.Run(t.Context(), func(ctx context.Context, term *leader.Term) error {
				held, head := term.Claim().Token, term.Head()
				<-mine.renewed // it is not due again for minutes
				mine.veil.Store(&head)
				defer mine.veil.Store(nil)
				if claimed {
					green, err := catalog.Open(ctx, store.Open(), catalog.Config{Generation: 2})
					require.NoError(t, err)
					require.NoError(t, green.Close())
				}
				return &fence.Error{Held: held, Current: fence.Token{Generation: 2, Epoch: 2}, Guard: "postgres catalog main"}
			})
			noted, noteErr := catalog.Refusals(t.Context(), catalog.NewBoard(store, catalog.Config{}))
			require.NoError(t, noteErr)
			require.Len(t, noted, 1)
			require.Equal(t, "postgres catalog main", noted[0].Guard)
			if claimed {
				require.ErrorIs(t, err, fence.ErrSuperseded)
				require.Equal(t, exitcodes.Success, exitcodes.CodeOf(err))
				return
			}
			require.ErrorContains(t, err, "refused by postgres catalog main")
			require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
		})
	}
}
