package postgres

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/testpg"
)

// A database that was copied within its server has claims of the same numbers, and an
// application may have locks of its own whose two numbers are the halves of one.
func TestALockOfTheSameNumberInACopyOrOfTwoNumbersShowsNoClaim(t *testing.T) {
	t.Parallel()
	dsn, copied := testpg.URL(t), testpg.URL(t)
	s, err := Open(t.Context(), dsn, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	claim := driver.NewID()
	shown := func() bool {
		there, err := s.isShown(drivertest.Context(t), claim)
		require.NoError(t, err)
		return there
	}
	own, other := testpg.Connect(t, dsn), testpg.Connect(t, copied)
	_, err = other.Exec(t.Context(), `select pg_advisory_lock_shared($1)`, presenceLock(claim))
	require.NoError(t, err)
	require.False(t, shown(), "in another database")
	high, low := int32(binary.BigEndian.Uint32(claim[:4])), int32(binary.BigEndian.Uint32(claim[4:8]))
	_, err = own.Exec(t.Context(), `select pg_advisory_lock_shared($1, $2)`, high, low)
	require.NoError(t, err)
	require.False(t, shown(), "a lock of two numbers")
	_, err = own.Exec(t.Context(), `select pg_advisory_lock_shared($1)`, presenceLock(claim))
	require.NoError(t, err)
	require.True(t, shown())
}
