package cli_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestStatusAndPreflightShowEveryHostOfTheURL(t *testing.T) {
	t.Parallel()
	var address string
	dsn := testpg.With(t, testpg.URL(t), func(u *url.URL) {
		address = u.Host
		u.Host += ",127.0.0.1:1"
	})
	require.NoError(t, hold(t.Context(), dsn, 1, "blue", "first", func(*catalog.Catalog) error { return nil }))
	for _, command := range []string{"status", "preflight --generation 2"} {
		args := append(strings.Fields(command), "--store", dsn)
		got := run(t, map[string]string{storeurl.EnvVar: dsn}, append(args, "--json")...)
		require.Equal(t, exitcodes.Success, got.code, got.stderr)
		hosts := object(t, got.stdout)["hosts"].([]any)
		require.Len(t, hosts, 2)
		there, gone := hosts[0].(map[string]any), hosts[1].(map[string]any)
		require.Equal(t, []any{address, true, "primary", 1.0, "ok"}, []any{there["address"], there["reachable"], there["role"], there["timeline"], there["grade"]})
		require.NotEmpty(t, there["system"])
		require.Equal(t, []any{"127.0.0.1:1", false, "", "warn"}, []any{gone["address"], gone["reachable"], gone["role"], gone["grade"]})
		require.Contains(t, gone["problem"], "connection refused")

		got = run(t, nil, args...)
		require.Equal(t, exitcodes.Success, got.code, got.stderr)
		require.Contains(t, got.stdout, address+": primary, timeline 1, system "+there["system"].(string))
		require.Contains(t, got.stdout, "127.0.0.1:1: not reached: failed to connect")
	}
}
