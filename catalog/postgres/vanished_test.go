package postgres_test

import (
	"context"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/internal/testpg"
)

// A road leads to a server, until it is cut: from then on nothing arrives, and
// nobody is told.
type road struct {
	net.Listener
	to  string
	cut atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func newRoad(t *testing.T, to string) *road {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &road{Listener: l, to: to}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			r.keep(client)
			if r.cut.Load() {
				continue
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			r.keep(server)
			tasks.Go(func() { r.pass(client, server) })
			tasks.Go(func() { r.pass(server, client) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		tasks.Wait()
	})
	return r
}

func (r *road) keep(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, c)
}

func (r *road) pass(from, to net.Conn) {
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		switch {
		case r.cut.Load() && err == nil:
		case r.cut.Load():
			return
		case err != nil:
			_ = to.Close()
			return
		default:
			_, _ = to.Write(buf[:n]) // the other side reads why
		}
	}
}

func TestAPrimaryThatVanishesCostsNotTheTimeOfACallForEachConnection(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	r := newRoad(t, cl.primary.Address())
	dsn := hosts(t, testpg.With(t, cl.primary.URL, func(u *url.URL) { u.Host = r.Addr().String() }), "", ","+cl.standby.Address())
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{LookTimeout: 500 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	head := claim(t, s)
	locked := lockHead(t, cl.primary.URL)
	var waiting sync.WaitGroup
	recs := make([]driver.Record, 4)
	for i := range recs { // one connection each
		recs[i] = next(head)
		waiting.Go(func() { _ = s.Append(within(t, soon), head, recs[i]) })
	}
	watch := testpg.Connect(t, cl.primary.URL)
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, watch.QueryRow(t.Context(), `select count(*) from pg_stat_activity where wait_event_type = 'Lock'`).Scan(&n))
		return n == len(recs)
	}, soon, often)
	require.NoError(t, locked.Close(t.Context()))
	waiting.Wait()
	head, err = s.Head(within(t, soon))
	require.NoError(t, err)
	cl.primary.CaughtUp(cl.standby)
	r.cut.Store(true)
	cl.failOver()

	rec, failed := next(head), 0
	for ; failed < 10; failed++ {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		err = s.Append(ctx, head, rec)
		cancel()
		if err == nil {
			break
		}
	}
	require.NoError(t, err)
	require.LessOrEqual(t, failed, 2, "calls that waited for a server that has gone")
}
