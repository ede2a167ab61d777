package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestNobodyIsShownThroughAPoolerInTransactionMode(t *testing.T) {
	s := throughPooler(t)(t).(*postgres.Store)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.ErrorIs(t, s.Present(ctx, driver.NewID(), func() { t.Error("shown") }), driver.ErrNoPresence)
	require.ErrorIs(t, s.WatchPresence(ctx, driver.NewID(), func() { t.Error("lost") }), driver.ErrNoPresence)
}

// A session that the server ends is a hint, and Present says that it ended.
func TestThePresenceOfASessionThatIsTerminatedEnds(t *testing.T) {
	dsn := testpg.URL(t)
	holder, standby := open(t, dsn), open(t, dsn)
	claim := driver.NewID()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	shown, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() { ended <- holder.Present(ctx, claim, func() { shown <- struct{}{} }) }()
	<-shown
	lost, watched := make(chan struct{}, 1), make(chan error, 1)
	go func() { watched <- standby.WatchPresence(ctx, claim, func() { lost <- struct{}{} }) }()
	admin, err := pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close(t.Context())) }()
	require.Eventually(t, func() bool { // once the watcher has looked
		select {
		case err := <-ended:
			require.Error(t, err)
			ended <- err
			return true
		case <-time.After(2 * time.Second):
			_, err := admin.Exec(ctx, `select pg_terminate_backend(pid) from pg_locks
				where locktype = 'advisory' and mode = 'ShareLock'
					and database = (select oid from pg_database where datname = current_database())`)
			require.NoError(t, err)
			return false
		}
	}, 30*time.Second, time.Millisecond)
	<-lost
	require.Error(t, <-ended)
	cancel()
	require.Error(t, <-watched)
}
