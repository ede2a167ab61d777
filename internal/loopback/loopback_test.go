package loopback_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/loopback"
)

func TestOnlyAddressesOfLoopbackAreThisHosts(t *testing.T) {
	t.Parallel()
	for _, mine := range []string{"127.0.0.1", "127.0.0.1:80", "127.9.9.9:1", "localhost", "localhost:80", "::1", "[::1]", "[::1]:80", "[::ffff:127.0.0.1]:80"} {
		require.True(t, loopback.Is(mine), mine)
	}
	for _, other := range []string{"", ":80", "0.0.0.0:80", "[::]:80", "10.0.0.1:80", "localhost.attacker.example", "127.0.0.1.attacker.example:80", "2130706433", "0127.0.0.1"} {
		require.False(t, loopback.Is(other), other)
		require.Error(t, loopback.Check(other), other)
	}
	require.NoError(t, loopback.Check("localhost:7001"))
	require.Error(t, loopback.Check("127.0.0.1"), "without a port")
}

func TestARequestOfAnotherHostOrForAnotherNameIsRefused(t *testing.T) {
	t.Parallel()
	h := loopback.Only(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }),
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	for _, c := range []struct {
		from, host string
		code       int
	}{
		{"127.0.0.1:9", "127.0.0.1:7001", http.StatusOK},
		{"[::1]:9", "localhost", http.StatusOK},
		{"127.0.0.1:9", "attacker.example", http.StatusForbidden},
		{"10.0.0.1:9", "127.0.0.1:7001", http.StatusForbidden},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr, r.Host = c.from, c.host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, c.code, w.Code, "%+v", c)
	}
}
