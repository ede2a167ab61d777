package work_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/work"
)

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
		require.NoError(t, err)
		defer c.Close()
		var n atomic.Int64
		q, err := work.New(c, work.Config{Kinds: []work.Kind{{Name: "a", Run: func(ctx context.Context, j *work.Job) error {
			if n.Add(1)%10 == 0 {
				return fmt.Errorf("no")
			}
			return nil
		}}}})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error {
			for i := range 100 {
				if _, err := work.Enqueue(tx, "a", fmt.Sprint(i), nil); err != nil {
					return err
				}
			}
			return nil
		}))
		time.Sleep(10 * time.Minute)
		require.NoError(t, q.Idle(t.Context()))
		st, err := q.Status(t.Context())
		require.NoError(t, err)
		fmt.Printf("%+v\n", st)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}
