package kvserver_test

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// TestNoRequestFailsWhileAServerIsReplaced has 64 clients of blue count, which
// never repeat a call, while green is promoted and blue forwards to it.
func TestNoRequestFailsWhileAServerIsReplaced(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, url string) {
		blue := start(t, url, "-generation", "1", "-admin", "127.0.0.1:0", "-drain", "1m").leads()
		var acked atomic.Int64
		var stop atomic.Bool
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				c := redis.NewClient(&redis.Options{Addr: blue.address, MaxRetries: -1, PoolSize: 1})
				defer c.Close()
				for !stop.Load() {
					if err := c.Incr(t.Context(), "n").Err(); err != nil {
						t.Errorf("a call failed: %v", err)
						return
					}
					acked.Add(1)
				}
			})
		}
		reach := func(more int64) {
			aim := acked.Load() + more
			require.Eventually(t, func() bool { return acked.Load() >= aim || t.Failed() }, patience, time.Millisecond)
		}
		reach(200)
		green := start(t, url, "-generation", "2", "-admin", "127.0.0.1:0", "-auto-promote").leads()
		reach(200)
		stop.Store(true)
		wg.Wait()
		require.Zero(t, blue.exitCode(), "its clients have left")
		require.Contains(t, blue.log.String(), "superseded")
		require.Equal(t, strconv.FormatInt(acked.Load(), 10), green.cli("GET", "n"), "each call was counted once")
	})
}
