package cli_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/storeurl"
)

// forgetful is a store that acknowledges commits which it does not keep.
type forgetful struct {
	driver.Store
	forgets atomic.Bool
}

func (f *forgetful) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	if f.forgets.Load() {
		return nil
	}
	return f.Store.Append(ctx, prior, rec)
}

// lost returns the path of a catalog that has lost a commit of g1.e2, and the loss.
func lost(t *testing.T) (path string, loss catalog.Loss) {
	t.Helper()
	path = claimed(t)
	store, err := storeurl.Open(t.Context(), "sqlite:"+path, storeurl.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	f := &forgetful{Store: store}
	c, err := catalog.Open(t.Context(), f, catalog.Config{Generation: 1, Holder: fence.Holder{Name: "green"}})
	require.NoError(t, err)
	f.forgets.Store(true)
	require.NoError(t, update(c, 1))
	require.ErrorIs(t, c.Confirm(t.Context()), catalog.ErrLostCommit)
	require.ErrorIs(t, c.Close(), catalog.ErrLostCommit)
	losses, err := catalog.Losses(t.Context(), store)
	require.NoError(t, err)
	require.Len(t, losses, 1)
	return path, losses[0]
}

func claims(t *testing.T, path string) error {
	return hold(t.Context(), "sqlite:"+path, 1, "blue", "again", func(*catalog.Catalog) error { return nil })
}

func TestALossIsShownAndForbidsClaimsUntilTheTokenWasRaised(t *testing.T) {
	t.Parallel()
	path, loss := lost(t)
	env := on(path)
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(claims(t, path)))

	status := run(t, env, "status").stdout
	for _, want := range []string{"LOST", "the commits from revision 6 on, under g1.e2", "found by green", "on file ", "no process claims until this is dealt with",
		"fencepost restored --above g1.e2", "fencepost restored --dismiss=" + loss.ID.String()} {
		require.Contains(t, status, want)
	}
	shown := object(t, run(t, env, "status", "--json").stdout)["losses"].([]any)
	require.Len(t, shown, 1)
	require.Equal(t, loss.ID.String(), shown[0].(map[string]any)["id"])
	require.EqualValues(t, 6, shown[0].(map[string]any)["from_revision"])
	require.NotContains(t, shown[0], "ended")

	preflight := run(t, env, "preflight", "--generation", "2")
	require.Equal(t, exitcodes.Config, preflight.code)
	require.Contains(t, preflight.stdout, "fencepost restored --above g1.e2")
	fenced := run(t, env, "fence", "--reason", "r")
	require.Equal(t, exitcodes.Config, fenced.code)
	require.Contains(t, fenced.stderr, loss.ID.String())

	restored := run(t, env, "restored")
	require.Equal(t, exitcodes.Success, restored.code, restored.stderr)
	require.Contains(t, restored.stdout, "commits were lost, above g1.e2")
	require.NotContains(t, run(t, env, "status").stdout, "LOST")
	require.Empty(t, object(t, run(t, env, "status", "--json").stdout)["losses"])
	history := run(t, env, "history").stdout
	require.Contains(t, history, loss.ID.String())
	require.Contains(t, history, "restored by fencepost restored by alice")
	require.Contains(t, history, "as g1.e3")
	ended := object(t, run(t, env, "history", "--json").stdout)["losses"].([]any)[0].(map[string]any)["ended"].(map[string]any)
	require.Equal(t, "restored", ended["how"])
	require.Equal(t, "g1.e3", ended["token"])
	require.Equal(t, exitcodes.Success, run(t, env, "preflight", "--generation", "2").code)
	require.NoError(t, claims(t, path))
	require.Equal(t, exitcodes.Usage, run(t, env, "restored").code, "no loss says above what")
}

func TestALossIsDismissed(t *testing.T) {
	t.Parallel()
	path, loss := lost(t)
	env := on(path)
	head := object(t, run(t, env, "status", "--json").stdout)["token"]
	for args, want := range map[string]exitcodes.Code{
		"restored --dismiss=x":                             exitcodes.Usage,
		"restored --dismiss --above g1.e9":                 exitcodes.Usage,
		"restored nonsense":                                exitcodes.Usage,
		"restored --dismiss " + driver.NewID().String():    exitcodes.Failure,
		"restored --dismiss=" + driver.NewID().String():    exitcodes.Failure,
		"restored --dismiss=" + strings.Repeat("0", 31):    exitcodes.Usage,
		"restored --dismiss " + loss.ID.String() + " more": exitcodes.Usage,
	} {
		require.Equal(t, want, run(t, env, strings.Fields(args)...).code, args)
	}
	require.Error(t, claims(t, path))
	for _, args := range []string{"restored --dismiss " + loss.ID.String() + " --json"} {
		got := run(t, env, strings.Fields(args)...)
		require.Equal(t, exitcodes.Success, got.code, got.stderr)
		require.Equal(t, loss.ID.String(), object(t, got.stdout)["loss"])
	}
	require.Equal(t, head, object(t, run(t, env, "status", "--json").stdout)["token"], "no token was raised")
	require.Contains(t, run(t, env, "history").stdout, "dismissed by fencepost restored --dismiss by alice")
	require.Equal(t, exitcodes.Failure, run(t, env, "restored", "--dismiss").code, "there is none any more")
	require.NoError(t, claims(t, path))

	path, _ = lost(t)
	require.Equal(t, exitcodes.Success, run(t, on(path), "restored", "--dismiss").code, "the one that stands")
	require.NoError(t, claims(t, path))
}

func TestATokenThatIsNamedIsRaisedOverALossToo(t *testing.T) {
	t.Parallel()
	path, _ := lost(t)
	got := run(t, on(path), "restored", "--above", "g1.e2")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	require.NoError(t, claims(t, path))
	require.Equal(t, exitcodes.Config, run(t, on(path), "restored", "--above", "g1.e2").code, "that loss has ended")
}

func TestExplainNamesTheCommandThatEndsALoss(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"2", "78"} {
		require.Contains(t, strings.Join(strings.Fields(run(t, nil, "explain", code).stdout), " "), "fencepost restored")
	}
}
