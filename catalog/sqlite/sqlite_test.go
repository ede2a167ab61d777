package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
)

// newCatalog returns a function that opens one more Store over one new file.
func newCatalog(t *testing.T) func(t *testing.T) driver.Store {
	path := filepath.Join(t.TempDir(), "a name with % ? and #.db")
	return func(t *testing.T) driver.Store { return open(t, path) }
}

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestTheStoreKeepsTheContract(t *testing.T) { drivertest.RunStore(t, newCatalog) }

func TestTheProtocolHolds(t *testing.T) { drivertest.RunProtocol(t, newCatalog) }
