package cli_test

import (
	"database/sql"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/internal/testetcd"
	"github.com/fencepost/fencepost/internal/testpg"
)

func nothing(*catalog.Catalog) error { return nil }

// appFile makes an application's own file.
func appFile(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "app.db")
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), "CREATE TABLE orders (n)")
	require.NoError(t, err)
	require.NoError(t, db.Close())
	return path
}

// raiseTo raises a register as a holder does.
func raiseTo(t *testing.T, register, token string) {
	t.Helper()
	r, err := storeurl.OpenRegister(t.Context(), register, storeurl.Config{})
	require.NoError(t, err)
	to, err := fence.Parse(token)
	require.NoError(t, err)
	require.NoError(t, r.Raise(t.Context(), to, fence.Holder{Name: "green-2"}))
	require.NoError(t, r.Close())
}

// TestARegisterIsShownAndRaisedByTheCommandAndNeverLowered goes through what an
// operator may find.
func TestARegisterIsShownAndRaisedByTheCommandAndNeverLowered(t *testing.T) {
	t.Parallel()
	for name, register := range map[string]string{
		"sqlite": "sqlite:" + appFile(t), "etcd": testetcd.URL(t) + "/register", "postgres": testpg.URL(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			named := []string{"--register", register}
			env := on(filepath.Join(t.TempDir(), "c.db"))
			got := run(t, nil, append([]string{"guard", "status"}, named...)...)
			require.Equal(t, exitcodes.Success, got.code, got.stderr)
			require.Regexp(t, `(?m)^token\s+none$`, got.stdout, "without a store the register alone is shown")
			got = run(t, env, append([]string{"guard", "raise"}, named...)...)
			require.Equal(t, exitcodes.Failure, got.code)
			require.Contains(t, got.stderr, "nobody has claimed")
			require.NoError(t, hold(t.Context(), env[storeurl.EnvVar], 1, "blue-1", "first", nothing))
			require.NoError(t, hold(t.Context(), env[storeurl.EnvVar], 1, "blue-2", "second", nothing))

			got = run(t, env, append([]string{"guard", "status"}, named...)...)
			require.Equal(t, exitcodes.Failure, got.code)
			require.Contains(t, got.stderr, "holds none and the catalog has issued g1.e2")
			require.Contains(t, got.stderr, "run fencepost guard raise")
			got = run(t, env, append([]string{"guard", "raise", "--json"}, named...)...)
			require.Equal(t, exitcodes.Success, got.code, got.stderr)
			require.Equal(t, "g1.e2", object(t, got.stdout)["token"])
			got = run(t, env, append([]string{"guard", "status"}, named...)...)
			require.Equal(t, exitcodes.Success, got.code, got.stderr)
			require.Regexp(t, `(?m)^token\s+g1\.e2$`, got.stdout)
			require.Regexp(t, `(?m)^raised by\s+blue-2`, got.stdout)
			require.Regexp(t, `(?m)^its newest\s+g1\.e2$`, got.stdout)

			raiseTo(t, register, "g2.e9") // as a holder has, of whose claim the catalog was restored
			for _, command := range []string{"status", "raise"} {
				got = run(t, env, append([]string{"guard", command}, named...)...)
				require.Equal(t, exitcodes.Failure, got.code)
				require.Contains(t, got.stderr, "fencepost restored --above g2.e9")
			}
			got = run(t, env, "restored", "--above", "g2.e9")
			require.Equal(t, exitcodes.Success, got.code, got.stderr)
			got = run(t, env, append([]string{"guard", "raise"}, named...)...)
			require.Equal(t, exitcodes.Success, got.code, got.stderr)
			require.Regexp(t, `(?m)^token\s+g2\.e10$`, got.stdout)
		})
	}
}

func TestTablesOfARegistersDatabaseAreGuardedByTheCommand(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	testpg.Exec(t, dsn, `create table orders (id int primary key)`)
	secret := testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword("postgres", "hunter2") })
	env := map[string]string{storeurl.RegistersEnvVar: secret}
	got := run(t, env, "guard", "install", "--register", "1", "--table", "orders")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	require.Contains(t, got.stdout, "public.orders")
	got = run(t, env, "guard", "status", "--register", "1", "--json")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	require.Len(t, object(t, got.stdout)["tables"], 1)
	require.NotContains(t, got.stdout, "hunter2")
	got = run(t, env, "guard", "remove", "--register", "1", "--table", "orders")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	for args, want := range map[string]exitcodes.Code{secret: exitcodes.Usage, "2": exitcodes.Config, "sqlite:absent.db": exitcodes.Config, "redis://h": exitcodes.Config} {
		got = run(t, env, "guard", "status", "--register", args)
		require.Equal(t, want, got.code, args)
		require.NotContains(t, got.stderr, "hunter2")
	}
	require.Equal(t, exitcodes.Usage, run(t, env, "guard", "raise").code)
}
