package postgres_test

import (
	"fmt"
	"net/url"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/testpg"
)

// leastPrivileged makes a database whose schema a DBA has made, and returns its
// URL for a role that may do nothing else.
func leastPrivileged(t *testing.T) string {
	t.Helper()
	dsn := testpg.URL(t)
	role := `least "` + driver.NewID().String()
	quoted := fmt.Sprintf(`"%s"`, `least ""`+role[len(`least "`):])
	testpg.Exec(t, dsn, "create role "+quoted+" login password 'pw'")
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop owned by "+quoted+"; drop role "+quoted) })
	testpg.Exec(t, dsn, postgres.Schema(role, ""))
	return testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(role, "pw") })
}

func TestARoleWithTheLeastRightsKeepsTheContract(t *testing.T) {
	t.Parallel()
	drivertest.RunStore(t, catalogsOf(leastPrivileged(t)))
}

func TestTheDBAsSchemaIsTheOneThatTheFirstUseMakes(t *testing.T) {
	t.Parallel()
	require.Contains(t, postgres.Schema("", ""), "create table fencepost.log")
	require.NotContains(t, postgres.Schema("", ""), "grant usage")
	dsn := testpg.URL(t)
	testpg.Exec(t, dsn, postgres.Schema("", ""))
	var others int
	require.NoError(t, testpg.Connect(t, dsn).QueryRow(t.Context(), `select count(*) from (
		select nspacl, nspowner from pg_namespace where nspname = 'fencepost'
		union all select relacl, relowner from pg_class where relnamespace = 'fencepost'::regnamespace
		union all select proacl, proowner from pg_proc where pronamespace = 'fencepost'::regnamespace) as o(acl, owner),
		aclexplode(acl) as a where a.grantee not in (0, owner)`).Scan(&others))
	require.Zero(t, others, "no role was named, and none has rights")
	head := drivertest.Install(t, open(t, dsn), 1)
	drivertest.SameHead(t, head, drivertest.ReadHead(t, open(t, dsn)))
}

// adminOf returns the URL of a database for the user who made it.
func adminOf(t *testing.T, dsn string) string {
	t.Helper()
	server, err := url.Parse(os.Getenv(testpg.Variable))
	require.NoError(t, err)
	return testpg.With(t, dsn, func(u *url.URL) { u.User = server.User })
}
