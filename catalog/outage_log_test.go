package catalog_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
)

func TestAnOutageIsLoggedWithGrowingDistanceAndNamesTheStoreOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		store := memory.New()
		f, err := catalog.Follow(t.Context(), store, catalog.Config{
			Generation: 1, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		require.NoError(t, err)
		store.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
		<-time.After(10 * time.Minute)
		store.Inject(nil)
		<-time.After(time.Minute)
		store.Inject(func(memory.Call) memory.Fault { return memory.Refuse })
		<-time.After(10 * time.Second)
		require.NoError(t, f.Close())
		var at []time.Time
		for line := range strings.Lines(log.String()) {
			if !strings.Contains(line, "the head can't be read") {
				continue
			}
			require.Equal(t, 1, strings.Count(line, store.String()), line)
			stamp, err := time.Parse("time=2006-01-02T15:04:05.000Z07:00", strings.Fields(line)[0])
			require.NoError(t, err)
			at = append(at, stamp)
		}
		require.Greater(t, len(at), 8)
		require.Less(t, len(at), 20, log.String())
		for i := 2; i < 8; i++ {
			require.Greater(t, at[i].Sub(at[i-1]), at[i-1].Sub(at[i-2]), "line %d", i)
		}
		require.Greater(t, at[len(at)-1].Sub(at[0]), 11*time.Minute, "the next outage is logged at once")
	})
}
