package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/step"
)

func TestAProcessThatDiesInACheckOfTheStoreDoesNoHarm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	for range 2 { // the second one meets what the first one has left
		killed(t, "claims", path, step.StoreRaced)
	}
	left, err := filepath.Glob(path + "-check-*")
	require.NoError(t, err)
	require.NotEmpty(t, left, "the scratch place of a process that died just now may be anybody's")
	s := open(t, path)
	require.True(t, drivertest.ReadHead(t, s).IsZero())
	c, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	nothingIsLeft(t, path)
}
