package etcd

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEachParameterOfTheURLSetsItsField(t *testing.T) {
	t.Parallel()
	none := Config{Getenv: func(string) string { return "" }}
	_, cfg, err := parse("etcd://h:1/p?lease=20s&hedge-after=21ms&keepalive=22s&keepalive-timeout=23s&dial-timeout=24s&claim-ttl=25s", none, true)
	require.NoError(t, err)
	require.Equal(t, []time.Duration{20 * time.Second, 21 * time.Millisecond, 22 * time.Second, 23 * time.Second, 24 * time.Second, 25 * time.Second},
		[]time.Duration{cfg.Lease, cfg.HedgeAfter, cfg.KeepAlive, cfg.KeepAliveTimeout, cfg.DialTimeout, cfg.ClaimTTL})
	_, cfg, err = parse("etcd://h:1/p?hedge-after=off", none, true)
	require.NoError(t, err)
	require.Negative(t, cfg.HedgeAfter)
}
