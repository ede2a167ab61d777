package pgwork_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/testpg"
	"github.com/fencepost/fencepost/work"
	"github.com/fencepost/fencepost/work/pgwork"
)

// TestAPreparedTransactionKeepsItsRequestAndAWakeThatMustWaitGivesUp is about a server
// of its own, where a transaction can be prepared, and where a NOTIFY of somebody else
// waits for a standby that is not there: so does every other one until it ends.
func TestAPreparedTransactionKeepsItsRequestAndAWakeThatMustWaitGivesUp(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server := testpg.NewServer(t, testpg.Setting("max_prepared_transactions = 2"), testpg.Setting("synchronous_standby_names = 'nobody'"))
	p := newPlaceIn(t, server.URL+"&synchronous_commit=local", "main")
	h := p.hold(2, p.store(), 20*time.Millisecond)

	web := testpg.Connect(t, p.dsn)
	tx, err := web.Begin(ctx)
	require.NoError(t, err)
	prepared, err := pgwork.EnqueueTx(ctx, tx, "main", work.Request{Kind: "sync", Key: "k", Payload: []byte("a")})
	require.NoError(t, err)
	_, err = web.Exec(ctx, `prepare transaction 'p'`)
	require.NoError(t, err)
	waited := make(chan pgwork.Enqueued, 1)
	go func() { waited <- p.enqueue(work.Request{Kind: "sync", Key: "k", Payload: []byte("b")}) }()
	require.Eventually(t, func() bool { return testpg.Waiting(p.dsn) != 0 }, soon, often, "its key is locked until it ends")
	require.Empty(t, h.runs())
	_, err = web.Exec(ctx, `commit prepared 'p'`)
	require.NoError(t, err)
	require.Less(t, prepared.Ref, (<-waited).Ref)
	h.does("a", "b")

	blocked, end := context.WithCancel(ctx)
	other := testpg.Connect(t, server.URL)
	done := make(chan error, 1)
	go func() {
		_, err := other.Exec(blocked, `create table public.t (); select pg_notify('other', '')`)
		done <- err
	}()
	require.Eventually(t, func() bool {
		var n int
		err := web.QueryRow(ctx, `select count(*) from pg_stat_activity where wait_event = 'SyncRep'`).Scan(&n)
		return err == nil && n == 1
	}, soon, often)
	e := p.enqueue(job("c"))
	require.ErrorContains(t, e.Wake(ctx, web), "SQLSTATE 55P03")
	require.NoError(t, web.Ping(ctx), "the connection lives")
	h.does("a", "b", "c")
	require.Empty(t, done, "the other one waits still")
	end()
	<-done
}
