package kvserver_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/internal/testetcd"
	"github.com/fencepost/fencepost/internal/testpg"
)

// hiccups runs a holder and its standby through hiccups of their store, and
// checks that neither took them for a loss.
func hiccups(t *testing.T, url string, hiccup func()) {
	t.Helper()
	admin := freeAddress(t)
	holder := start(t, url, "-generation", "1", "-admin", admin).leads()
	standby := start(t, url, "-generation", "1")
	require.Eventually(t, func() bool { return strings.Contains(adminSays(t, admin), `"standbys":1`) }, patience, 10*time.Millisecond)
	for n := 1; n <= 3; n++ {
		hiccup()
		require.Eventually(t, func() bool { return holder.cli("INCR", "n") == fmt.Sprint(n) }, patience, 50*time.Millisecond, "the holder does not go on")
	}
	said := adminSays(t, admin)
	require.NotContains(t, said, "Unconfirmed")
	require.Contains(t, said, `"phase":"Leading"`)
	require.Contains(t, standby.cli("INFO", "fencepost"), "fencepost_phase:ready-to-promote")
	store, err := storeurl.Open(t.Context(), url, storeurl.Config{Getenv: os.Getenv, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	history, err := catalog.History(t.Context(), store)
	require.NoError(t, err)
	require.Len(t, history, 1, "a false takeover")
}

func adminSays(t *testing.T, admin string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/api/leader/status", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var text strings.Builder
	require.NoError(t, resp.Write(&text))
	return text.String()
}

func TestEverySessionOfPostgreSQLDropsAtOnceAndNobodyTakesOver(t *testing.T) {
	t.Parallel()
	url := testpg.URL(t)
	admin, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close(context.WithoutCancel(t.Context()))) }()
	hiccups(t, url, func() {
		tag, err := admin.Exec(t.Context(), `select pg_terminate_backend(pid) from pg_stat_activity
			where datname = current_database() and pid <> pg_backend_pid()`)
		require.NoError(t, err)
		require.Positive(t, tag.RowsAffected())
	})
}

func TestAllLeasesOfEtcdAreRevokedAndNobodyTakesOver(t *testing.T) {
	t.Parallel()
	server := testetcd.NewServer(t, testetcd.Options{})
	client := testetcd.Client(t, server.URL())
	revoked := 0
	hiccups(t, server.URL(), func() {
		all, err := client.Leases(t.Context())
		require.NoError(t, err)
		for _, lease := range all.Leases {
			_, err := client.Revoke(t.Context(), lease.ID)
			require.NoError(t, err)
			revoked++
		}
	})
	require.Positive(t, revoked, "nothing hung on a lease")
}

func TestEtcdElectsAnewAndNobodyTakesOver(t *testing.T) {
	t.Parallel()
	server := testetcd.NewServer(t, testetcd.Options{})
	hiccups(t, server.URL(), func() {
		server.Kill()
		server.Start()
	})
}

// freeAddress is one of loopback at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}
