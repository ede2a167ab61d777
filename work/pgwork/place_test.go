package pgwork_test

import (
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testpg"
	"github.com/fencepost/fencepost/work"
	"github.com/fencepost/fencepost/work/pgwork"
)

const (
	soon  = 20 * time.Second // for what must come
	often = 5 * time.Millisecond
)

// A place is a database in which the functions are installed, and a web server's pool.
type place struct {
	*testing.T
	dsn     string // of the owner
	catalog string
	pool    *pgxpool.Pool
}

// newPlace makes a database whose catalog main was claimed once.
func newPlace(t *testing.T) *place { return newPlaceIn(t, testpg.URL(t), "main") }

func newPlaceIn(t *testing.T, dsn, name string) *place {
	t.Helper()
	p := &place{T: t, dsn: dsn, catalog: name}
	c, err := catalog.Open(t.Context(), p.store(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	p.pool = p.connect(dsn)
	require.NoError(t, pgwork.Install(t.Context(), p.pool))
	return p
}

func (p *place) connect(dsn string) *pgxpool.Pool {
	p.Helper()
	pool, err := pgxpool.New(p.Context(), dsn)
	require.NoError(p, err)
	p.Cleanup(pool.Close)
	return pool
}

func (p *place) store() *postgres.Store {
	p.Helper()
	return p.storeAt(p.dsn)
}

func (p *place) storeAt(dsn string) *postgres.Store {
	p.Helper()
	s, err := postgres.Open(p.Context(), testpg.With(p, dsn, func(u *url.URL) {
		q := u.Query()
		q.Set("catalog", p.catalog)
		u.RawQuery = q.Encode()
	}), postgres.Config{})
	require.NoError(p, err)
	p.Cleanup(func() { require.NoError(p, s.Close()) })
	return s
}

// inTx calls fn in a transaction that commits.
func (p *place) inTx(fn func(tx pgx.Tx)) {
	p.Helper()
	require.NoError(p, pgx.BeginFunc(p.Context(), p.pool, func(tx pgx.Tx) error { fn(tx); return nil }))
}

// begin begins a transaction, which is rolled back at the end of the test, if it has not
// ended.
func (p *place) begin() pgx.Tx {
	p.Helper()
	tx, err := p.pool.Begin(p.Context())
	require.NoError(p, err)
	p.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// enqueue enqueues a job in a transaction of its own, and wakes nobody.
func (p *place) enqueue(r work.Request, opts ...pgwork.Option) (e pgwork.Enqueued) {
	p.Helper()
	p.inTx(func(tx pgx.Tx) {
		var err error
		e, err = pgwork.EnqueueTx(p.Context(), tx, p.catalog, r, opts...)
		require.NoError(p, err)
	})
	return e
}

// inbox returns the refs that wait.
func (p *place) inbox() (refs []string) {
	p.Helper()
	notes, err := p.store().Notes(p.Context(), work.InboxPrefix)
	require.NoError(p, err)
	for _, n := range notes {
		refs = append(refs, n.Key[len(work.InboxPrefix):])
	}
	return refs
}

// A holder holds the token and runs jobs of kind "sync", whose payloads it notes.
type holder struct {
	*place
	c    *catalog.Catalog
	done chan error

	mu  sync.Mutex
	ran []string
}

func (p *place) hold(g generation.Generation, s driver.Store, poll time.Duration) *holder {
	p.Helper()
	c, err := catalog.Open(p.Context(), s, catalog.Config{Generation: g})
	require.NoError(p, err)
	h := &holder{place: p, c: c, done: make(chan error, 1)}
	q, err := work.New(c, work.Config{Poll: poll, Kinds: []work.Kind{{Name: "sync", Order: work.Each, MaxPayload: work.MaxPayload, Run: h.run}}})
	require.NoError(p, err)
	ctx, stop := context.WithCancel(p.Context())
	go func() { h.done <- q.Run(ctx) }()
	p.Cleanup(func() {
		stop()
		err := <-h.done
		h.done <- err
		_ = c.Close()
	})
	require.NoError(p, q.Idle(p.Context()))
	return h
}

func (h *holder) run(_ context.Context, j *work.Job) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ran = append(h.ran, string(j.Payload))
	return nil
}

func (h *holder) runs() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.ran...)
}

// does waits until the holder has run these jobs.
func (h *holder) does(payloads ...string) {
	h.Helper()
	require.Eventually(h, func() bool { return len(h.runs()) >= len(payloads) }, soon, often, "%q", payloads)
	require.Equal(h, payloads, h.runs())
}

// empties waits until the inbox is empty.
func (h *holder) empties() {
	h.Helper()
	require.Eventually(h, func() bool { return len(h.inbox()) == 0 }, soon, 4*often)
}

func (h *holder) reply(ref string) (reply work.Reply) {
	h.Helper()
	found := false
	require.Eventually(h, func() bool {
		require.NoError(h, h.c.View(func(r *catalog.Reader) (err error) { reply, found, err = work.ReplyTo(r, ref); return err }))
		return found
	}, soon, often)
	return reply
}

func job(payload string) work.Request { return work.Request{Kind: "sync", Payload: []byte(payload)} }

func (h *holder) find(id work.ID) (info work.Info) {
	h.Helper()
	found := false
	require.NoError(h, h.c.View(func(r *catalog.Reader) (err error) {
		info, found, err = work.Find(r, h.c.Head(), id, time.Now())
		return err
	}))
	require.True(h, found, "job %d", id)
	return info
}
