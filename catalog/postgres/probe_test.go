package postgres_test

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/testpg"
)

// probed returns the findings by name.
func probed(t *testing.T, s *postgres.Store) map[string]driver.Finding {
	t.Helper()
	findings, err := s.Probe(within(t, soon))
	require.NoError(t, err)
	named := map[string]driver.Finding{}
	for _, f := range findings {
		require.NotEmpty(t, f.Detail)
		require.Equal(t, f.Grade != driver.Fine, f.Remedy != "", "%v", f)
		named[f.Name] = f
	}
	require.Len(t, named, len(findings), "two findings of one name")
	return named
}

func TestAProbeOfASoundServerCreatesNoSchema(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	found := probed(t, s)
	require.Equal(t, driver.Fine, found["server"].Grade)
	require.Contains(t, found["server"].Detail, "takes writes")
	require.Contains(t, found["rights"].Detail, "there is no schema yet")
	require.Equal(t, driver.Fine, found["rights"].Grade)
	var schemas int
	require.NoError(t, testpg.Connect(t, dsn).QueryRow(t.Context(), `select count(*) from pg_namespace where nspname = 'fencepost'`).Scan(&schemas))
	require.Zero(t, schemas)
	claim(t, s)
	require.Equal(t, "this role may read and write the catalog", probed(t, s)["rights"].Detail)
}

func TestAProbeTellsOfSettingsThatLoseCommits(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	found := probed(t, open(t, withParam(t, dsn, "synchronous_commit", "off")))
	require.Equal(t, driver.Warning, found["durability"].Grade)
	require.Contains(t, found["durability"].Detail, "synchronous_commit=off")
	found = probed(t, open(t, withParam(t, dsn, "default_transaction_read_only", "on")))
	require.Equal(t, driver.Failure, found["server"].Grade)
	require.Contains(t, found["server"].Detail, "read-only")
}

func TestAProbeNamesTheRightsThatARoleLacks(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	claim(t, open(t, dsn))
	id := driver.NewID()
	role := "probe_" + id.String()
	testpg.Exec(t, dsn, "create role "+role+" login password 'probe'", "grant usage on schema fencepost to "+role,
		"grant select on all tables in schema fencepost to "+role, "grant insert on fencepost.log to "+role)
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop owned by "+role, "drop role "+role) })
	s := open(t, testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(role, "probe") }))
	found := probed(t, s)
	require.Equal(t, driver.Failure, found["rights"].Grade)
	require.Contains(t, found["rights"].Detail, "UPDATE on fencepost.head")
	require.NotContains(t, found["rights"].Detail, "SELECT")
	require.NotContains(t, found["rights"].Detail, "INSERT on fencepost.log")
}

func TestAProbeOfAServerThatIsNotThereIsClassified(t *testing.T) {
	t.Parallel()
	s := open(t, "postgres://u@127.0.0.1:1/d")
	_, err := s.Probe(within(t, soon))
	var e *driver.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "probe", e.Op)
}
