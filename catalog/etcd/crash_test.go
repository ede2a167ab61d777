package etcd_test

import (
	"context"
	"slices"
	"testing"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/internal/crashtest"
	"github.com/fencepost/fencepost/internal/step"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func openAt(where string) (driver.Store, error) {
	return etcd.Open(context.Background(), where, etcd.Config{})
}

func TestTheProcessDiesBetweenAnyTwoStepsAndTheNextOpenSeesAllOfACommitOrNothing(t *testing.T) {
	crashtest.Run(t, testetcd.URL(t), openAt, points())
}

// points are the steps of this driver: a claim and a commit are one Txn each,
// which has no inside.
func points() []step.Point {
	return slices.DeleteFunc(step.All(), func(p step.Point) bool {
		return p == step.ClaimHeadWritten || p == step.ClaimLogWritten || p == step.CommitHeadWritten || p == step.CommitLogWritten
	})
}
