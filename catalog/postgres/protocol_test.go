package postgres_test

import (
	"testing"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestTheProtocolHolds(t *testing.T) {
	drivertest.RunProtocol(t, func(t *testing.T) func(*testing.T) driver.Store {
		dsn := testpg.URL(t)
		return func(t *testing.T) driver.Store { return open(t, dsn) }
	})
}
