package cli_test

import (
	"encoding/json"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestWhatReapMayNotRemoveIsSaidWithTheRemedyAndEndsWithItsCode(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	role := "least_" + driver.NewID().String()
	testpg.Exec(t, dsn, "create role "+role+" login password 'pw'")
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop owned by "+role+"; drop role "+role) })
	testpg.Exec(t, dsn, postgres.Schema(role, ""), `insert into fencepost.head values ('check:main:5f000000-0123456789abcdef', 1, gen_random_uuid(), '')`)
	least := map[string]string{storeurl.EnvVar: testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(role, "pw") })}
	for _, args := range [][]string{{"reap"}, {"reap", "--json"}} {
		got := run(t, least, args...)
		require.Equal(t, exitcodes.Config, got.code)
		require.Contains(t, got.stderr, "permission denied")
		require.Contains(t, got.stdout, "failed", "standard output has the whole answer nevertheless")
		require.NotContains(t, got.stdout+got.stderr, "pw")
	}
	owner := map[string]string{storeurl.EnvVar: dsn}
	got := run(t, owner, "reap", "--json")
	require.Equal(t, exitcodes.Success, got.code)
	var answer struct {
		Items []struct{ Kind, Name, Fate string }
	}
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &answer))
	require.Len(t, answer.Items, 1)
	require.Equal(t, "deleted", answer.Items[0].Fate)
	require.Contains(t, run(t, owner, "reap").stdout, "removed  0")
}
