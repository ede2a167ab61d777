package postgres_test

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

// scratchRows counts the rows of scratch places in each table.
const scratchRows = `select (select count(*) from fencepost.log where catalog like 'check:%'), (select count(*) from fencepost.board where catalog like 'check:%'),
	(select count(*) from fencepost.head where catalog like 'check:%'), (select count(*) from fencepost.token where catalog like 'check:%'),
	(select count(*) from fencepost.claim where catalog like 'check:%')`

func countScratch(t *testing.T, dsn string) (log, board, head, token, claim int) {
	t.Helper()
	require.NoError(t, testpg.Connect(t, dsn).QueryRow(t.Context(), scratchRows).Scan(&log, &board, &head, &token, &claim))
	return log, board, head, token, claim
}

func TestACheckLeavesNoRowBehindAndRemovesThoseOfDeadProcesses(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	s := open(t, dsn)
	const expired = "check:main:5f000000-0123456789abcdef"
	kept := "check:main:" + driver.NewScratchName()
	_, err := catalog.Prove(t.Context(), s, catalog.Config{}) // which makes the schema
	require.NoError(t, err)
	for _, place := range []string{expired, "check:main:5f000001-0123456789abcdef"} { // killed before its first claim
		testpg.Exec(t, dsn, `insert into fencepost.board values ('`+place+`', 'way 1', 'v', 1)`)
	}
	for _, place := range []string{expired, kept} {
		testpg.Exec(t, dsn, `insert into fencepost.head values ('`+place+`', 1, gen_random_uuid(), '')`,
			`insert into fencepost.log values ('`+place+`', 1, gen_random_uuid(), 1, 1, '')`)
	}
	_, err = catalog.Prove(t.Context(), s, catalog.Config{})
	require.NoError(t, err)
	log, board, head, token, claim := countScratch(t, dsn)
	require.Equal(t, [5]int{1, 0, 1, 0, 0}, [5]int{log, board, head, token, claim}, "but for the one that may be in use")
}

func TestARoleWithTheLeastRightsChecksTheStoreAndLeavesAFewRows(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	id := driver.NewID()
	role := "least_" + id.String()
	testpg.Exec(t, dsn, "create role "+role+" login password 'pw'")
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop owned by "+role+"; drop role "+role) })
	testpg.Exec(t, dsn, postgres.Schema(role, ""))
	s := open(t, testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(role, "pw") }))
	for range 2 {
		proof, err := catalog.Prove(t.Context(), s, catalog.Config{})
		require.NoError(t, err)
		require.True(t, proof.Passed)
	}
	log, board, head, token, claim := countScratch(t, dsn)
	require.Zero(t, log+board, "what grows with a check is removed")
	require.Equal(t, 2, head)
	require.Equal(t, 2, token)
	require.LessOrEqual(t, claim, 2*6)
}

func TestTheOwnerOfTheSchemaRemovesWhatARoleWithTheLeastRightsLeaves(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	role := "least_" + driver.NewID().String()
	testpg.Exec(t, dsn, "create role "+role+" login password 'pw'")
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop owned by "+role+"; drop role "+role) })
	testpg.Exec(t, dsn, postgres.Schema(role, ""))
	least := open(t, testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(role, "pw") }))
	owner := open(t, dsn)
	const place = "check:main:5f000000-0123456789abcdef"
	testpg.Exec(t, dsn, `insert into fencepost.head values ('`+place+`', 1, gen_random_uuid(), '')`)
	left, err := least.Left(t.Context())
	require.NoError(t, err)
	require.Len(t, left, 1)
	removed, err := least.RemoveLeft(t.Context(), left[0])
	require.ErrorContains(t, err, "permission denied")
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	require.False(t, removed)
	removed, err = owner.RemoveLeft(t.Context(), left[0])
	require.NoError(t, err)
	require.True(t, removed)
	removed, err = owner.RemoveLeft(t.Context(), left[0])
	require.NoError(t, err)
	require.False(t, removed, "the second time")
}
