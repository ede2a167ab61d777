package cli_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
)

// object reads text that must be exactly one JSON object in one line.
func object(t *testing.T, text string) map[string]any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	var v map[string]any
	require.NoError(t, dec.Decode(&v), text)
	_, err := dec.Token()
	require.ErrorIs(t, err, io.EOF, "more than one object: %s", text)
	require.Equal(t, 1, strings.Count(text, "\n"), text)
	return v
}

func fields(v map[string]any) []string { return slices.Sorted(maps.Keys(v)) }

func TestEveryAnswerIsOneJSONObjectOfAKnownShape(t *testing.T) {
	t.Parallel()
	held, raised := claimed(t), claimed(t)
	shapes := map[string][]string{
		"status": {"aborted_generations", "allocated_generation", "claim", "commit", "data_version", "epoch", "expected", "generation", "heartbeat",
			"holder", "hosts", "losses", "members", "members_ended", "members_unheard", "more_members", "other_catalogs", "promotion", "readable_by", "reason", "revision", "store", "token", "verdict"},
		"history":                             {"changes", "claims", "losses", "store"},
		"generation next":                     {"generation", "store"},
		"promote --generation 1 --wait=claim": {"holder", "leading", "promotion", "serving", "store", "token", "waited_ms"},
		"promote --generation 1 --no-wait":    {"holder", "leading", "promotion", "serving", "store", "token", "waited_ms"},
		"preflight --generation 2":            {"checks", "generation", "grade", "hosts", "round_trip_p50_us", "round_trip_p99_us", "store"},
		"fence --reason r":                    {"claim", "fenced", "previous_token", "reason", "store", "token"},
		"restored --above g1.e9":              {"claim", "fenced", "previous_token", "reason", "store", "token"},
		"work status": {"at", "blocked", "broken", "dead", "failures", "holder", "inbox", "kinds", "live", "revision", "since_open", "states", "store",
			"suspended", "takeovers", "token", "totals", "unreadable"},
		"work list":                       {"jobs", "more", "store", "token"},
		"work enqueue --kind k --no-wait": {"requests", "store"},
		"work check":                      {"alerts", "at", "failing_sinks", "firing", "looked", "store"},
		"version":                         {"go", "modified", "platform", "revision", "time", "version"},
	}
	for command, want := range shapes {
		path := held
		if strings.HasPrefix(command, "fence") || strings.HasPrefix(command, "restored") {
			path = raised // nobody leads there any more, so that a promotion would wait
		}
		got := run(t, on(path), append(strings.Fields(command), "--json")...)
		require.Equal(t, exitcodes.Success, got.code, got.stderr)
		require.Empty(t, got.stderr)
		require.Equal(t, want, fields(object(t, got.stdout)), command)
	}
}

func TestStatusInJSONSaysWhatTheHeadSays(t *testing.T) {
	t.Parallel()
	path := claimed(t)
	require.Equal(t, exitcodes.Success, run(t, on(path), "generation", "next").code)
	require.Equal(t, exitcodes.Success, run(t, on(path), "promote", "--generation", "2", "--no-wait", "--by", "bob").code)
	v := object(t, run(t, on(path), "status", "--json").stdout)
	require.Equal(t, "sqlite:"+path, v["store"])
	require.Equal(t, "g1.e1", v["token"])
	require.Equal(t, 1.0, v["epoch"])
	require.Equal(t, 4.0, v["revision"], "a claim and three commits")
	require.Equal(t, "blue", v["holder"].(map[string]any)["name"])
	require.Equal(t, "first", v["reason"])
	require.Equal(t, 2.0, v["allocated_generation"])
	require.Equal(t, 2.0, v["promotion"].(map[string]any)["generation"])
	require.Equal(t, "bob", v["promotion"].(map[string]any)["by"])
	require.Nil(t, v["heartbeat"])
}

func TestWhatNobodyWroteIsNullInJSON(t *testing.T) {
	t.Parallel()
	env := on(filepath.Join(t.TempDir(), "none.db"))
	v := object(t, run(t, env, "status", "--json").stdout)
	for _, field := range []string{"token", "holder", "claim", "commit", "promotion", "heartbeat"} {
		require.Nil(t, v[field], field)
	}
	require.Equal(t, []any{}, object(t, run(t, env, "history", "--json").stdout)["claims"], "an empty list, not null")
}

func TestEveryErrorIsOneJSONObjectOnStandardError(t *testing.T) {
	t.Parallel()
	path := claimed(t)
	cases := []struct {
		args        string
		code        float64
		disposition string
		store       string
	}{
		{"status --no-such-flag", 64, "halt", ""},
		{"nonsense", 64, "halt", ""},
		{"", 64, "halt", ""},
		{"generation", 64, "halt", ""},
		{"run", 64, "halt", ""},
		{"status --timeout 0s", 64, "halt", ""},
		{"status --store-timeout 0s", 64, "halt", ""},
		{"status --store mysql://h/d", 78, "halt", ""},
		{"status --store postgres://u@127.0.0.1:1/d?catalog=c --timeout 1s", 75, "retry", "postgres://127.0.0.1:1/d?catalog=c"},
		{"status --store etcd://127.0.0.1:1/p --timeout 300ms", 75, "retry", "etcd://127.0.0.1:1/p"},
		{"fence", 64, "halt", ""},
		{"work", 64, "halt", ""},
		{"work show 0", 64, "halt", ""},
		{"work enqueue --kind \x01 --no-wait", 64, "halt", ""},
		{"work status --store etcd://127.0.0.1:1/p --timeout 300ms", 75, "retry", "etcd://127.0.0.1:1/p"},
		{"work retry 1 --store etcd://127.0.0.1:1/p --timeout 300ms", 75, "retry", "etcd://127.0.0.1:1/p"},
		{"restored", 64, "halt", ""},
		{"preflight", 64, "halt", ""},
		{"preflight --generation 2 --store etcd://127.0.0.1:1/p --timeout 300ms", 75, "retry", "etcd://127.0.0.1:1/p"},
		{"fence --reason r --store etcd://127.0.0.1:1/p --timeout 300ms", 75, "retry", "etcd://127.0.0.1:1/p"},
		{"promote --generation 2 --force --timeout 1ms", 75, "retry", "sqlite:" + path},
	}
	for _, c := range cases {
		got := run(t, on(path), append(strings.Fields(c.args), "--json")...)
		v := object(t, got.stderr)
		require.Empty(t, got.stdout, c.args)
		require.Equal(t, []string{"code", "disposition", "error", "store"}, fields(v))
		require.Equal(t, c.code, v["code"], "%s: %s", c.args, got.stderr)
		require.EqualValues(t, c.code, got.code)
		require.Equal(t, c.disposition, v["disposition"], c.args)
		require.Equal(t, c.store, v["store"], c.args)
	}
}

func TestNoErrorOfACommandIsASuccess(t *testing.T) {
	t.Parallel()
	path := claimed(t)
	require.NoError(t, hold(t.Context(), "sqlite:"+path, 5, "green", "", func(*catalog.Catalog) error { return nil }))
	got := run(t, on(path), "promote", "--generation", "2", "--json")
	require.Equal(t, exitcodes.Failure, got.code, "superseded ends a server with 0, but no command")
	require.Equal(t, "none", object(t, got.stderr)["disposition"])
}

func TestAnInterruptedWaitSaysThatThePromotionStays(t *testing.T) {
	t.Parallel()
	path := claimed(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stderr := new(strings.Builder)
	code := mainWith(ctx, path, afterFirstLine(func() { cancel(context.Canceled) }), stderr, "promote", "--force", "--generation", "2")
	require.Equal(t, exitcodes.Failure, code)
	require.Contains(t, stderr.String(), "the promotion stays")
}
