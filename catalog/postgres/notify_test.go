package postgres_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/testpg"
)

// warnings is a handler of logs that hands on the text of each warning.
type warnings struct {
	slog.Handler
	to chan string
}

func newWarnings() warnings {
	return warnings{slog.DiscardHandler, make(chan string, 100)}
}

func (w warnings) Enabled(context.Context, slog.Level) bool { return true }

func (w warnings) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		w.to <- r.Message
	}
	return nil
}

func TestANotificationThatFailsIsALogLineAndNoClaimFails(t *testing.T) {
	t.Parallel()
	dsn := leastPrivileged(t)
	testpg.Exec(t, adminOf(t, dsn), `revoke execute on function pg_catalog.pg_notify(text, text) from public`)
	log := newWarnings()
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{Logger: slog.New(log)})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	for range 2 {
		head := claim(t, s)
		require.NoError(t, s.Append(within(t, soon), head, next(head)))
		require.Contains(t, <-log.to, "not notified")
	}
}

// TestANotificationThatHangsDelaysNothing has another application's NOTIFY wait
// for a standby that is not there: until it ends, every other NOTIFY of the
// server waits behind it.
func TestANotificationThatHangsDelaysNothing(t *testing.T) {
	t.Parallel()
	server := testpg.NewServer(t, testpg.Setting("synchronous_standby_names = 'nobody'"))
	mine := withParam(t, server.URL, "synchronous_commit", "local")
	log := newWarnings()
	s, err := postgres.Open(t.Context(), mine, postgres.Config{Logger: slog.New(log)})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	claim(t, s)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	other := testpg.Connect(t, server.URL)
	done := make(chan error, 1)
	go func() {
		_, err := other.Exec(ctx, `create table public.t (); select pg_notify('other', '')`)
		done <- err
	}()
	look := testpg.Connect(t, mine)
	require.Eventually(t, func() bool {
		var n int
		err := look.QueryRow(t.Context(), `select count(*) from pg_stat_activity where wait_event = 'SyncRep'`).Scan(&n)
		return err == nil && n == 1
	}, soon, often)

	for range 3 {
		head := claim(t, s)
		require.NoError(t, s.Append(within(t, soon), head, next(head)))
	}
	require.Contains(t, <-log.to, "not notified")
	claim(t, s)
	require.NoError(t, s.Close())
	require.Empty(t, done, "the other one waits still")
	cancel()
	<-done
}

func TestAClaimOfAStoreThatIsClosedAtOnceIsNoticedAllTheSame(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	watched := open(t, dsn)
	drivertest.Install(t, watched, 1)
	woken := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- watched.Watch(ctx, func() { woken <- struct{}{} }) }()
	<-woken // at the beginning
	for range 20 {
		s, err := postgres.Open(t.Context(), dsn, postgres.Config{})
		require.NoError(t, err)
		claim(t, s)
		require.NoError(t, s.Close())
		<-woken
	}
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}
