package leader

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheTimeOfOneCallFollowsFromTheLease(t *testing.T) {
	t.Parallel()
	for lease, want := range map[time.Duration]time.Duration{
		0: 5 * time.Second, 3 * time.Second: 2 * time.Second, 300 * time.Millisecond: time.Second, time.Minute: 5 * time.Second,
	} {
		require.Equal(t, want, Config{Lease: lease}.withDefaults().Catalog.StoreTimeout, lease)
	}
	var own Config
	own.Catalog.StoreTimeout = time.Hour
	require.Equal(t, time.Hour, own.withDefaults().Catalog.StoreTimeout)
}
