package leader

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
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

func TestAPeerAddressThatOthersCannotCallIsRefused(t *testing.T) {
	t.Parallel()
	for _, host := range []string{
		"", "0.0.0.0", "::", "::%eth0", "::ffff:0.0.0.0", "0", "0.0", "0x0", "00000000", "224.0.0.1", "ff02::1", "ff02::1%eth0", "255.255.255.255", "fe80::1",
	} {
		err := checkPeer(net.JoinHostPort(host, "7001"))
		require.ErrorContains(t, err, "others are told it, and call it", host)
	}
	for _, address := range []string{"7001", "::1:7001", "kv-1"} {
		require.Error(t, checkPeer(address), address)
	}
	for _, host := range []string{"10.0.0.7", "127.0.0.1", "kv-1", "kv-1.example.", "0.pool.example", "2001:db8::7", "fe80::1%eth0", "169.254.7.7", "::ffff:10.0.0.7"} {
		require.NoError(t, checkPeer(net.JoinHostPort(host, "7001")), host)
	}
}

func TestAnAddressThatCannotBeListenedToEndsRunWithTheCodeForConfiguration(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{Peer: "no-such-host.invalid:7001"}, {Peer: "192.0.2.1:7001"}, {Peer: "127.0.0.1:99999"}, {Admin: "127.0.0.1:99999"}} {
		cfg.Catalog.Generation = 1
		l, err := New(memory.New(), cfg)
		require.NoError(t, err)
		err = l.Run(t.Context(), nil)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), err)
		require.ErrorContains(t, err, "give it another address")
	}
}

func TestADelayThatOutlastsAnOfferIsRefused(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		cfg     Config
		refused bool
	}{
		{Config{}, false},
		{Config{Priority: 9, PreferNotToLead: true}, false},
		{Config{Priority: 9, HandoverTimeout: time.Second}, true},
		{Config{Priority: 9, Lease: time.Minute}, true},
		{Config{PreferNotToLead: true, HandoverTimeout: time.Second}, true},
		{Config{HandoverTimeout: time.Second}, false},
	} {
		row.cfg.Catalog.Generation = 1
		_, err := New(memory.New(), row.cfg)
		require.Equal(t, row.refused, err != nil, "%+v: %v", row.cfg, err)
	}
}
