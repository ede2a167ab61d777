package etcd_test

import (
	"testing"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	drivertest.RunStore(t, func(t *testing.T) func(*testing.T) driver.Store {
		url := testetcd.URL(t)
		return func(t *testing.T) driver.Store { return open(t, url, etcd.Config{}) }
	})
}

func TestTheProtocolHolds(t *testing.T) {
	t.Parallel()
	drivertest.RunProtocol(t, func(t *testing.T) func(*testing.T) driver.Store {
		url := testetcd.URL(t)
		return func(t *testing.T) driver.Store { return open(t, url, etcd.Config{}) }
	})
}
