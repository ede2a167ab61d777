package memory_test

import (
	"testing"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/memory"
)

func TestStoreKeepsTheContract(t *testing.T) {
	drivertest.RunStore(t, func(*testing.T) func(*testing.T) driver.Store {
		catalog := memory.New()
		return func(*testing.T) driver.Store { return catalog.Open() }
	})
}

func TestTheProtocolHolds(t *testing.T) {
	drivertest.RunProtocol(t, func(*testing.T) func(*testing.T) driver.Store {
		catalog := memory.New()
		return func(*testing.T) driver.Store { return catalog.Open() }
	})
}
