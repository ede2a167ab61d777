package sqlite_test

import (
	sqldriver "database/sql/driver"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"
	client "modernc.org/sqlite"

	"github.com/fencepost/fencepost/catalog/driver"
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
	crashtest.Run(t, filepath.Join(t.TempDir(), "c.db"), openAt, points())
}

// points are the steps of this driver: it writes a batch of any size at once.
func points() []step.Point {
	return slices.DeleteFunc(step.All(), func(p step.Point) bool {
		return p == step.BatchStaged
	})
}
