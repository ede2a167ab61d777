package postgres_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
)

const (
	soon  = time.Minute // for what must come
	often = 5 * time.Millisecond
)

func open(t *testing.T, dsn string) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), dsn, postgres.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// catalogsOf returns what makes empty catalogs, each with a name of its own, in
// the database at dsn: databases and poolers are dear.
func catalogsOf(dsn string) func(*testing.T) func(*testing.T) driver.Store {
	return func(t *testing.T) func(*testing.T) driver.Store {
		mine := withParam(t, dsn, "catalog", "c"+driver.NewID().String())
		return func(t *testing.T) driver.Store { return open(t, mine) }
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// An expiring context is over when it is told to be, and then says that its time
// was: so a test waits for what must come before, however slow the machine is.
type expiring struct {
	context.Context
	over chan struct{}
}

func (e expiring) Done() <-chan struct{} { return e.over }

func (e expiring) Err() error {
	select {
	case <-e.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// expires returns a context and what ends its time, at the latest done after soon.
func expires(t *testing.T) (context.Context, func()) {
	e := expiring{within(t, soon), make(chan struct{})}
	var once sync.Once
	expire := func() { once.Do(func() { close(e.over) }) }
	context.AfterFunc(e.Context, expire)
	return e, expire
}

// blocked tries to claim where somebody is in the way, and returns the error. A
// loaded machine may take a second before it comes that far, or can say who it is:
// then it has more.
func blocked(t *testing.T, s *postgres.Store) error {
	t.Helper()
	for d := time.Second; ; d *= 4 {
		begun := time.Now()
		_, err := tryClaim(within(t, d), s)
		require.Error(t, err)
		require.Less(t, time.Since(begun), d+soon, "the wait is bounded")
		named := errors.Is(err, driver.ErrBlocked) && !strings.Contains(err.Error(), "can't be told")
		if named || d > soon {
			return err
		}
	}
}

// waitingAre waits until so many backends wait for a lock.
func waitingAre(t *testing.T, dsn string, n int) {
	t.Helper()
	conn := testpg.Connect(t, dsn)
	require.Eventually(t, func() bool {
		var found int
		err := conn.QueryRow(t.Context(), `select count(*) from pg_stat_activity
			where datname = current_database() and wait_event_type = 'Lock'`).Scan(&found)
		return err == nil && found == n
	}, soon, often)
}

// next returns a commit that follows prior under its token.
func next(prior driver.Head) driver.Record {
	return driver.Record{Revision: prior.Revision + 1, ID: driver.NewID(), Token: prior.Claim.Token, Payload: []byte("payload")}
}

// nextClaim returns a claim of generation 1 that follows prior.
func nextClaim(prior driver.Head) (driver.Claim, driver.Record) {
	token := fence.Token{Generation: 1, Epoch: prior.Claim.Token.Epoch + 1}
	rec := driver.Record{Revision: prior.Revision + 1, ID: driver.NewID(), Token: token, Payload: []byte("claim")}
	return driver.Claim{
		Token: token, ID: rec.ID, Revision: rec.Revision,
		Holder: fence.Holder{Name: "test"}, PriorClaim: prior.Claim.ID, PriorCommit: prior.Commit,
	}, rec
}

// claim installs the next claim and returns the head after it.
func claim(t *testing.T, s *postgres.Store) driver.Head {
	t.Helper()
	head, err := tryClaim(within(t, soon), s)
	require.NoError(t, err)
	return head
}

func tryClaim(ctx context.Context, s *postgres.Store) (driver.Head, error) {
	c, err := s.Claim(ctx)
	if err != nil {
		return driver.Head{}, err
	}
	defer c.Abandon()
	next, rec := nextClaim(c.Head())
	return next.Head(), c.Install(ctx, next, rec)
}

// fails requires a classified error.
func fails(t *testing.T, err error, d exitcodes.Disposition, o driver.Outcome) *driver.Error {
	t.Helper()
	var e *driver.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, d, e.Disposition(), err.Error())
	require.Equal(t, o, e.Outcome, err.Error())
	return e
}

func records(t *testing.T, s *postgres.Store) []driver.Record {
	t.Helper()
	var all []driver.Record
	require.NoError(t, s.Log(within(t, soon), 0, func(r driver.Record) error {
		all = append(all, r)
		return nil
	}))
	return all
}

func withParam(t *testing.T, dsn, key, value string) string {
	return testpg.With(t, dsn, func(u *url.URL) {
		q := u.Query()
		q.Set(key, value)
		u.RawQuery = q.Encode()
	})
}

// A proxy forwards connections to a server, and answers until it is told to
// drop them.
type proxy struct {
	net.Listener
	server atomic.Value // its host and port
	mute   atomic.Bool  // drop the connection at the server's next answer
	conns  atomic.Int64

	mu   sync.Mutex
	open []net.Conn
}

// cut ends every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		_ = c.Close()
	}
	p.open = nil
}

func (p *proxy) keep(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, conns...)
}

func newProxy(t *testing.T, dsn string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{Listener: l}
	p.server.Store(u.Host)
	done := make(chan struct{})
	go func() { defer close(done); p.serve() }()
	t.Cleanup(func() { _ = l.Close(); <-done })
	u.Host = l.Addr().String()
	return p, u.String()
}

func (p *proxy) serve() {
	for {
		client, err := p.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		server, err := net.Dial("tcp", p.server.Load().(string))
		if err != nil {
			_ = client.Close()
			continue
		}
		p.conns.Add(1)
		p.keep(client, server)
		go func() { _, _ = io.Copy(server, client); _ = server.Close() }()
		go p.answer(client, server)
	}
}

func (p *proxy) answer(client, server net.Conn) {
	defer func() { _ = client.Close(); _ = server.Close() }()
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		if err != nil || p.mute.Load() {
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// lockHead returns a session that holds the head's row in a transaction.
func lockHead(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn := testpg.Connect(t, dsn)
	_, err := conn.Exec(t.Context(), `begin; select from fencepost.head for update`)
	require.NoError(t, err)
	return conn
}

// holdCommits makes every commit to the log wait, inside its own end, until
// release is called.
func holdCommits(t *testing.T, dsn string) (release func()) {
	t.Helper()
	conn := testpg.Connect(t, dsn)
	_, err := conn.Exec(t.Context(), `select pg_advisory_lock(42);
		create function public.hold() returns trigger language plpgsql as $$ begin
			perform pg_advisory_xact_lock(42); return null; end $$;
		create constraint trigger hold after insert on fencepost.log deferrable initially deferred
			for each row execute function public.hold()`)
	require.NoError(t, err)
	return func() {
		_, err := conn.Exec(t.Context(), `select pg_advisory_unlock(42)`)
		require.NoError(t, err)
	}
}

// waiting returns the process id of the backend that waits for a lock, once
// there is one.
func waiting(t *testing.T, dsn string) (pid int) {
	t.Helper()
	require.Eventually(t, func() bool { pid = testpg.Waiting(dsn); return pid != 0 }, soon, often)
	return pid
}
