package postgres

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/internal/testpg"
)

// TestAClaimsTransactionHasItsOwnSettingsWhateverItsSessionHas is about a pool that
// was handed in, whose sessions have the application's settings.
func TestAClaimsTransactionHasItsOwnSettingsWhateverItsSessionHas(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(testpg.URL(t))
	require.NoError(t, err)
	for name, value := range map[string]string{
		"lock_timeout": "0", "statement_timeout": "1h", "search_path": "public", "row_security": "on", "jit": "on",
		"synchronous_commit": "off", "client_min_messages": "error",
	} {
		config.ConnConfig.RuntimeParams[name] = value
	}
	Prepare(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	defer pool.Close()
	const idle = 17 * time.Second
	s, err := Open(t.Context(), "postgres:///", Config{Pool: pool, ClaimIdle: idle})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	c, err := s.Claim(drivertest.Context(t))
	require.NoError(t, err)
	defer c.Abandon()
	tx := c.(*claiming).tx
	setting := func(name string) (value string) {
		require.NoError(t, tx.QueryRow(t.Context(), `select setting from pg_catalog.pg_settings where name = $1`, name).Scan(&value), name)
		return value
	}
	for name, want := range map[string]string{
		"idle_in_transaction_session_timeout": strconv.FormatInt(idle.Milliseconds(), 10),
		"statement_timeout":                   "0", "search_path": "pg_catalog", "row_security": "off", "jit": "off",
		"synchronous_commit": "on", "client_min_messages": "warning",
	} {
		require.Equal(t, want, setting(name), name)
	}
	wait, err := strconv.Atoi(setting("lock_timeout"))
	require.NoError(t, err)
	require.Positive(t, wait, "the server ends the wait for a lock of a claimer that has stopped")
	require.Less(t, time.Duration(wait)*time.Millisecond, 3*drivertest.Patience, "within the time of the call")
}

func TestAClaimIsBlockedAlsoIfNobodyCanBeNamed(t *testing.T) {
	t.Parallel()
	s, _ := held(t)
	c := &claiming{store: s}
	err := c.orBlocked(t.Context(), patienceOf(t.Context()), func(context.Context) error { return &pgconn.PgError{Code: "55P03"} })
	require.ErrorIs(t, err, driver.ErrBlocked)
	other := errors.New("another reason")
	err = c.orBlocked(t.Context(), patienceOf(t.Context()), func(context.Context) error { return other })
	require.Same(t, other, err)
}
