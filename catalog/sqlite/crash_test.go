package sqlite_test

import (
	sqldriver "database/sql/driver"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	client "modernc.org/sqlite"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/internal/crashtest"
	"github.com/fencepost/fencepost/internal/step"
)

func openAt(where string) (driver.Store, error) { return sqlite.Open(where, sqlite.Config{}) }

func TestMain(m *testing.M) {
	if crashtest.Child(openAt) {
		os.Exit(1)
	}
	if part := os.Getenv(partVar); part != "" {
		os.Exit(play(part))
	}
	if path := os.Getenv(stopVar); path != "" {
		stopInCommit(path)
		os.Exit(1)
	}
	if part := os.Getenv(appVar); part != "" {
		os.Exit(application(part, os.Getenv(appPathVar)))
	}
	// Some tests open the file as another program would, and that may be first.
	if _, err := sqlite.Open("c.db", sqlite.Config{}); err != nil {
		panic(err)
	}
	client.MustRegisterScalarFunction("rename_for_test", 1, renameForTest)
	if err := sqlite.GiveToken(givenToken); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// renameForTest renames a file from within a statement of SQLite's.
func renameForTest(_ *client.FunctionContext, args []sqldriver.Value) (sqldriver.Value, error) {
	name := args[0].(string)
	return nil, os.Rename(name, name+".old")
}

func TestTheProcessDiesBetweenAnyTwoStepsAndTheNextOpenSeesAllOfACommitOrNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	crashtest.Run(t, path, openAt, points())
	nothingIsLeft(t, path)
}

// nothingIsLeft fails if something is there that neither belongs to the catalog nor was
// removed by a holder, nor is one of Left's.
func nothingIsLeft(t *testing.T, path string) {
	t.Helper()
	s := open(t, path)
	for more := true; more; {
		var err error
		more, err = s.Trim(t.Context(), drivertest.ReadHead(t, s).Claim)
		require.NoError(t, err)
	}
	db := database(t, path, "deferred")
	var parts, records int
	require.NoError(t, db.QueryRow(`select (select count(*) from part where id not in (select id from snapshot)),
		(select count(*) from log where revision < (select coalesce(max(revision), 0) from snapshot))`).Scan(&parts, &records))
	require.Zero(t, parts, "parts of no snapshot")
	require.Zero(t, records, "records below the snapshot")
	left, err := s.Left(t.Context())
	require.NoError(t, err)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	for _, e := range entries {
		ending, ours := strings.CutPrefix(e.Name(), filepath.Base(path))
		ours = ours && slices.Contains([]string{"", "-wal", "-shm", "-claim"}, ending)
		listed := slices.ContainsFunc(left, func(l driver.Leftover) bool { return strings.Contains(e.Name(), l.Name) })
		require.True(t, ours || listed, "%s is left, and nobody removes it", e.Name())
	}
}

// points are the steps of this driver: it writes a batch of any size at once.
func points() []step.Point {
	return slices.DeleteFunc(step.All(), func(p step.Point) bool {
		return p == step.BatchStaged
	})
}
