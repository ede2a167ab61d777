package catalog_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/internal/closing"
)

// The context ends while the commit is under way.
func TestAnUpdateIsAnsweredBehindTheEndOfAContextThatGivesItTime(t *testing.T) {
	for name, c := range map[string]struct {
		left    time.Duration // zero: it says nothing
		takes   time.Duration
		unknown bool
	}{
		"a plain context":    {0, 100 * time.Millisecond, true},
		"time enough":        {5 * time.Second, 100 * time.Millisecond, false},
		"no time":            {time.Nanosecond, 100 * time.Millisecond, true},
		"half of the time":   {5 * time.Second, 3 * time.Second, true},
		"a time-out at most": {time.Hour, 3 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				open, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1, StoreTimeout: 2 * time.Second})
				require.NoError(t, err)
				store.Inject(func(call memory.Call) memory.Fault {
					if call.Method == "Append" {
						<-time.After(c.takes)
					}
					return memory.Pass
				})
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(50*time.Millisecond, cancel)
				if c.left != 0 {
					ctx = closing.New(ctx, func() time.Time { return time.Now().Add(c.left) })
				}
				ctx, stop := context.WithCancel(ctx)
				defer stop()
				err = open.Update(ctx, set("k"))
				if c.unknown {
					require.ErrorIs(t, err, catalog.ErrUnknownOutcome)
				} else {
					require.NoError(t, err)
				}
				store.Inject(nil)
				require.NoError(t, open.Close())
			})
		})
	}
}
