package postgres_test

import (
	"context"
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/fencepost/fencepost/catalog/driver"
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
	crashtest.Run(t, testpg.URL(t), openAt, points())
}

// points are the steps of this driver: a large commit is one statement like any
// other.
func points() []step.Point {
	return slices.DeleteFunc(step.All(), func(p step.Point) bool { return p == step.BatchStaged })
}
