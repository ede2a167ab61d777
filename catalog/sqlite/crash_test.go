package sqlite_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

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
	if path := os.Getenv(stopVar); path != "" {
		stopInCommit(path)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func TestTheProcessDiesBetweenAnyTwoStepsAndTheNextOpenSeesAllOfACommitOrNothing(t *testing.T) {
	crashtest.Run(t, filepath.Join(t.TempDir(), "c.db"), openAt, step.All())
}
