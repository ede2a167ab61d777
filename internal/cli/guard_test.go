package cli_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestTablesAreGuardedAndShownByTheCommand(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	env := map[string]string{storeurl.EnvVar: dsn}
	testpg.Exec(t, dsn, `create table orders (id int primary key)`, `create table lines (id int)`)
	got := run(t, env, "guard", "status")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	require.Contains(t, got.stdout, "none: run fencepost guard install")
	require.NoError(t, hold(t.Context(), dsn, 1, "blue", "first", func(c *catalog.Catalog) error {
		store, err := storeurl.Open(t.Context(), dsn, storeurl.Config{})
		require.NoError(t, err)
		defer func() { require.NoError(t, store.Close()) }()
		stale := &fence.Error{Held: c.Claim().Token, Current: fence.Token{Generation: 2, Epoch: 2}, Guard: "postgres catalog main"}
		return catalog.NoteRefusal(t.Context(), catalog.NewBoard(store, catalog.Config{}), fence.Holder{Name: "zombie"}, stale)
	}))

	got = run(t, env, "guard", "install", "--table", "orders")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	require.Contains(t, got.stdout, "public.orders  postgres  installed by postgres, ")
	require.Contains(t, got.stdout, "public.lines")
	require.Contains(t, got.stdout, "zombie")

	got = run(t, env, "guard", "status", "--json")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	shown := object(t, got.stdout)
	require.Equal(t, "g1.e1", shown["token"])
	require.Equal(t, true, shown["installed"])
	require.Equal(t, []any{"public.lines"}, shown["unguarded"])
	require.Len(t, shown["tables"], 1)
	require.Len(t, shown["refusals"], 1)

	testpg.Exec(t, dsn, `alter table orders disable trigger fencepost_guard`)
	got = run(t, env, "guard", "status")
	require.Equal(t, exitcodes.Failure, got.code)
	require.Contains(t, got.stderr, "guards have gaps: public.orders")

	got = run(t, env, "guard", "remove", "--schema", "public")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	require.Contains(t, got.stdout, "installed; guarded tables: 0")

	for _, args := range [][]string{{"guard"}, {"guard", "remove"}, {"guard", "install", "orders"}} {
		require.Equal(t, exitcodes.Usage, run(t, env, args...).code, args)
	}
	got = run(t, env, "guard", "install", "--table", "nope")
	require.Equal(t, exitcodes.Config, got.code)
	require.Contains(t, got.stderr, "there is no table nope")
	got = run(t, on(claimed(t)), "guard", "status")
	require.Equal(t, exitcodes.Usage, got.code)
	require.Contains(t, got.stderr, "only PostgreSQL")
}
