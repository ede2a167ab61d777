package postgres_test

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/crashtest"
	"github.com/fencepost/fencepost/internal/step"
	"github.com/fencepost/fencepost/internal/testpg"
)

func openAt(where string) (driver.Store, error) {
	return postgres.Open(context.Background(), where, postgres.Config{})
}

func TestMain(m *testing.M) {
	if crashtest.Child(openAt) {
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func TestTheProcessDiesBetweenAnyTwoStepsAndTheNextOpenSeesAllOfACommitOrNothing(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	crashtest.Run(t, dsn, openAt, points())
	nothingIsLeft(t, dsn)
}

// nothingIsLeft fails if something is there that neither belongs to the catalog main nor
// was removed by a holder, nor is one of Left's.
func nothingIsLeft(t *testing.T, dsn string) {
	t.Helper()
	s := open(t, dsn)
	for more := true; more; {
		var err error
		more, err = s.Trim(t.Context(), drivertest.ReadHead(t, s).Claim)
		require.NoError(t, err)
	}
	places := []string{"main"}
	left, err := s.Left(t.Context())
	require.NoError(t, err)
	for _, l := range left {
		places = append(places, "check:main:"+l.Name)
	}
	var parts, records, views int
	var catalogs []string
	require.NoError(t, testpg.Connect(t, dsn).QueryRow(t.Context(), `select
		(select count(*) from fencepost.part p where not exists (select from fencepost.snapshot s where s.catalog = p.catalog and s.id = p.id)),
		(select count(*) from fencepost.log l join fencepost.snapshot s using (catalog) where l.revision < s.revision),
		(select count(*) from pg_views where schemaname = 'fencepost' and viewname like 'main@%'),
		(select array_agg(catalog) from (select catalog from fencepost.head union select catalog from fencepost.token union select catalog from fencepost.log
			union select catalog from fencepost.claim union select catalog from fencepost.board union select catalog from fencepost.snapshot union select catalog from fencepost.part) c)`).
		Scan(&parts, &records, &views, &catalogs))
	require.Zero(t, parts, "parts of no snapshot")
	require.Zero(t, records, "records below the snapshot")
	require.Equal(t, 1, views, "views of guards")
	require.Subset(t, places, catalogs, "rows of other places")
}

// points are the steps of this driver: a large commit is one statement like any
// other.
func points() []step.Point {
	return slices.DeleteFunc(step.All(), func(p step.Point) bool { return p == step.BatchStaged })
}
