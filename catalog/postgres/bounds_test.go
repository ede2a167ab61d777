package postgres

import (
	"context"
	"errors"
	"fmt"
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

// TestAClaimerThatGivesUpBeforeTheServerDoesIsBlockedToo is about a server whose
// process has stopped, and so ends no wait for a lock.
func TestAClaimerThatGivesUpBeforeTheServerDoesIsBlockedToo(t *testing.T) {
	t.Parallel()
	s, dsn := held(t)
	holder, waiter := testpg.Connect(t, dsn), testpg.Connect(t, dsn)
	_, err := holder.Exec(t.Context(), `begin; select from fencepost.head for update`)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = waiter.Exec(ctx, `select from fencepost.head for update`)
	}()
	defer func() { cancel(); <-done }()
	require.Eventually(t, func() bool { return testpg.Waiting(dsn) != 0 }, time.Minute, 5*time.Millisecond)
	c := &claiming{store: s, pid: int(waiter.PgConn().PID())}
	asked := s.liveness.Stat().AcquireCount()
	err = c.orBlocked(t.Context(), patience{lock: time.Minute, giveUp: time.Millisecond}, func(bounded context.Context) error {
		<-bounded.Done()
		require.Eventually(t, func() bool { return s.liveness.Stat().AcquireCount() > asked }, time.Minute, time.Millisecond)
		return bounded.Err()
	})
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, fmt.Sprintf("by process %d ", holder.PgConn().PID()))
}

// TestAClaimAsksWhoIsInTheWayBeforeTheServerEndsItsWaitAndGivesUpLast is about the
// order of three times, all of which are within that of the call.
func TestAClaimAsksWhoIsInTheWayBeforeTheServerEndsItsWaitAndGivesUpLast(t *testing.T) {
	t.Parallel()
	for _, limit := range []time.Duration{time.Nanosecond, time.Second, time.Hour} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		wait := patienceOf(ctx)
		require.Positive(t, wait.ask)
		require.Less(t, wait.ask, wait.lock)
		require.Less(t, wait.lock, wait.giveUp)
		require.Less(t, wait.giveUp, max(limit, 4*time.Millisecond))
	}
	s, _ := held(t)
	c := &claiming{store: s}
	require.NoError(t, c.orBlocked(t.Context(), patience{ask: time.Hour, lock: time.Hour, giveUp: time.Hour}, func(bounded context.Context) error {
		end, ok := bounded.Deadline()
		require.True(t, ok)
		require.LessOrEqual(t, time.Until(end), time.Hour)
		return nil
	}))
}
