package postgres

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/testpg"
)

// twoOf opens two catalogs over one set of connections.
func twoOf(t *testing.T, dsn string) (*links, []*Store) {
	t.Helper()
	server, err := Connect(t.Context(), dsn, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	var stores []*Store
	for _, catalog := range []string{"main", "other"} {
		s, err := server.Open(t.Context(), catalog)
		require.NoError(t, err)
		stores = append(stores, s)
	}
	return server.links, stores
}

func TestOfHeadsThatAreReadTogetherTheOneOfAnotherSystemIsRefused(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	_, claimers := twoOf(t, dsn)
	for _, s := range claimers {
		drivertest.Install(t, s, 1)
	}
	testpg.Exec(t, dsn, `update fencepost.token set system_id = '1' where catalog = 'main'`)
	l, stores := twoOf(t, dsn)
	answers := l.lookTogether(drivertest.Context(t), stores)
	require.ErrorIs(t, answers[0].Err, errElsewhere)
	require.NoError(t, answers[1].Err)
	require.False(t, answers[1].Value.head.IsZero())
	m := l.known.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	require.Len(t, m.left, 1, "the server is left for one that may be the right one")
}

func TestOfHeadsThatAreReadTogetherNoneThatIsHiddenIsMissing(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	role := "hidden_" + driver.NewID().String()
	testpg.Exec(t, dsn, "create role "+role+" login password 'pw'")
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop owned by "+role+"; drop role "+role) })
	testpg.Exec(t, dsn, Schema(role, ""))
	_, claimers := twoOf(t, dsn)
	drivertest.Install(t, claimers[0], 1)
	testpg.Exec(t, dsn, `alter table fencepost.head enable row level security`)
	l, stores := twoOf(t, testpg.With(t, dsn, func(u *url.URL) {
		u.User = url.UserPassword(role, "pw")
		q := u.Query()
		q.Set("row_security", "on") // as behind a pooler, where the driver sets nothing for a session
		u.RawQuery = q.Encode()
	}))
	for _, a := range l.lookTogether(drivertest.Context(t), stores) {
		require.ErrorIs(t, a.Err, errHidden)
	}
}
