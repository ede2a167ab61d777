package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testpg"
)

const (
	many    = 1000
	handful = 10
)

// A tracer counts the statements of a pool, and of the connections that are
// made by its configuration.
type tracer struct{ statements atomic.Int64 }

func (c *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	c.statements.Add(1)
	return ctx
}

func (*tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// polled counts how often the head of a store is asked for.
type polled struct {
	*postgres.Store
	heads *atomic.Int64
}

func (p polled) Head(ctx context.Context) (driver.Head, error) {
	p.heads.Add(1)
	return p.Store.Head(ctx)
}

// Scratch has the check before each first claim race in memory: a thousand checks
// of the real store would take most of the test, which is not about them.
func (p polled) Scratch(ctx context.Context) (driver.Scratch, error) {
	return memory.New().Scratch(ctx)
}

// poolTracedBy returns a pool of four connections that a tracer hears of.
func poolTracedBy(t *testing.T, dsn string, by pgx.QueryTracer) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	config.ConnConfig.Tracer, config.MaxConns = by, 4
	postgres.Prepare(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	return pool
}

// each calls fn with 0 to many-1, a few at a time.
func each(t *testing.T, fn func(i int) error) {
	t.Helper()
	numbers := make(chan int)
	errs := make([]error, many)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for i := range numbers {
				errs[i] = fn(i)
			}
		})
	}
	for i := range many {
		numbers <- i
	}
	close(numbers)
	workers.Wait()
	require.NoError(t, errors.Join(errs...))
}

func tenant(i int) string { return fmt.Sprintf("tenant-%d", i) }

func process(g generation.Generation) catalog.Config {
	return catalog.Config{Generation: g, ClaimTimeout: time.Minute, StoreTimeout: soon}
}

func put(t *testing.T, c *catalog.Catalog, value string) error {
	return c.Update(within(t, time.Minute), func(tx *catalog.Tx) error {
		return catalog.Bytes("entries").Set(tx, "key", []byte(value))
	})
}

func TestAThousandCatalogsAreHeldOverAHandfulOfConnections(t *testing.T) {
	dsn := testpg.URL(t)
	before := goleak.IgnoreCurrent()
	traced := new(tracer)
	pool := poolTracedBy(t, dsn, traced)
	server, err := postgres.Connect(t.Context(), dsn, postgres.Config{Pool: pool})
	require.NoError(t, err)
	var heads atomic.Int64
	held := make([]*catalog.Catalog, many)
	each(t, func(i int) error {
		s, err := server.Open(t.Context(), tenant(i))
		if err == nil {
			held[i], err = catalog.Open(t.Context(), polled{s, &heads}, process(1))
		}
		return err
	})
	each(t, func(i int) error { return put(t, held[i], tenant(i)) })
	require.LessOrEqual(t, len(testpg.Backends(t, dsn, "")), handful)

	// What 1,000 idle catalogs cost.
	asked, sent := heads.Load(), traced.statements.Load()
	require.Eventually(t, func() bool { return heads.Load() > asked+5*many }, time.Minute, often)
	asked, sent = heads.Load()-asked, traced.statements.Load()-sent
	t.Logf("%d statements for %d polls", sent, asked)
	require.Less(t, sent, asked/2, "polls share their statements, if fewer on a machine that is busy")
	require.LessOrEqual(t, len(testpg.Backends(t, dsn, "")), handful)

	var closers []io.Closer // of the other processes
	fenced := map[int]bool{}
	for i := range 10 {
		fenced[i*many/10+i] = true
	}
	for i := range fenced {
		s, err := postgres.Open(t.Context(), withParam(t, dsn, "catalog", tenant(i)), postgres.Config{})
		require.NoError(t, err)
		closers = append(closers, s)
		other, err := catalog.Open(t.Context(), s, process(2))
		require.NoError(t, err)
		closers = append(closers, other)
	}
	for i, c := range held {
		if fenced[i] {
			<-c.Done()
			require.ErrorIs(t, c.Err(), fence.ErrSuperseded)
		}
	}
	each(t, func(i int) error {
		if fenced[i] {
			return nil
		}
		return errors.Join(put(t, held[i], "again"), held[i].Confirm(t.Context()), held[i].Err())
	})
	each(t, func(i int) error {
		if err := held[i].Close(); !errors.Is(err, fence.ErrSuperseded) == fenced[i] {
			return fmt.Errorf("%s ended with %w", tenant(i), err)
		}
		return nil
	})
	for _, c := range slices.Backward(closers) {
		require.NoError(t, c.Close())
	}
	require.NoError(t, server.Close())
	require.NoError(t, pool.Ping(t.Context()), "the pool is the caller's")
	pool.Close()
	goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("testing.(*T).Run"))
}

func TestAServersStoresShareItsConnectionsAndEndWithIt(t *testing.T) {
	t.Parallel()
	dsn := withParam(t, testpg.URL(t), "application_name", "shared")
	server, err := postgres.Connect(t.Context(), dsn, postgres.Config{MaxConns: 1})
	require.NoError(t, err)
	var stores []*postgres.Store
	for _, name := range []string{"a", "b", "b", "c"} {
		s, err := server.Open(t.Context(), name)
		require.NoError(t, err)
		stores = append(stores, s)
	}
	first := claim(t, stores[1])
	for _, s := range stores {
		head, err := s.Head(within(t, soon))
		require.NoError(t, err)
		require.Equal(t, s == stores[1] || s == stores[2], head == first)
	}
	require.NoError(t, stores[1].Close())
	_, err = stores[1].Head(within(t, soon))
	fails(t, err, exitcodes.None, driver.NotApplied)
	claim(t, stores[2])

	done := make(chan error, 1)
	begun := make(chan struct{}, 1)
	go func() { done <- stores[3].Watch(t.Context(), func() { begun <- struct{}{} }) }()
	<-begun
	require.LessOrEqual(t, len(testpg.Backends(t, dsn, "shared")), 4)
	require.NoError(t, server.Close())
	require.NoError(t, server.Close())
	require.ErrorContains(t, <-done, "the store is closed")
	require.Eventually(t, func() bool { return len(testpg.Backends(t, dsn, "shared")) == 0 }, soon, often)
	_, err = stores[0].Head(within(t, soon))
	fails(t, err, exitcodes.None, driver.NotApplied)
	require.NoError(t, stores[0].Close())
	_, err = server.Open(t.Context(), "a")
	fails(t, err, exitcodes.None, driver.NotApplied)
}

func TestAServersMistakesAreNamed(t *testing.T) {
	t.Parallel()
	_, err := postgres.Connect(t.Context(), "postgres://u:"+secret+"@h/db?catalog=one", postgres.Config{MaxConns: -1})
	require.ErrorContains(t, err, "Server.Open")
	require.ErrorContains(t, err, "MaxConns")
	require.NotContains(t, err.Error(), secret)
	require.Equal(t, exitcodes.Config, fails(t, err, exitcodes.Halt, driver.NotApplied).ExitCode())
	server, err := postgres.Connect(t.Context(), "postgres://u@127.0.0.1:1/db", postgres.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	_, err = server.Open(t.Context(), "UPPER")
	require.ErrorContains(t, err, `"UPPER"`)
	require.Equal(t, exitcodes.Config, fails(t, err, exitcodes.Halt, driver.NotApplied).ExitCode())
}

// Whoever watches hears of the own catalog alone, also while others come and go
// on the same connection.
func TestEachWatcherOfAServerHearsOfItsOwnCatalog(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	server, err := postgres.Connect(t.Context(), dsn, postgres.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	type listener struct {
		store *postgres.Store
		woken atomic.Int64
		stop  context.CancelFunc
		done  chan error
	}
	listen := func(name string) *listener {
		s, err := server.Open(t.Context(), name)
		require.NoError(t, err)
		l := &listener{store: s, done: make(chan error, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		l.stop = cancel
		go func() { l.done <- s.Watch(ctx, func() { l.woken.Add(1) }) }()
		require.Eventually(t, func() bool { return l.woken.Load() == 1 }, soon, often)
		return l
	}
	a, b := listen("a"), listen("b")
	alsoA := listen("a")
	claim(t, open(t, withParam(t, dsn, "catalog", "a")))
	require.Eventually(t, func() bool { return a.woken.Load() == 2 && alsoA.woken.Load() == 2 }, soon, often)
	require.EqualValues(t, 1, b.woken.Load())

	a.stop()
	fails(t, <-a.done, exitcodes.None, driver.NotApplied)
	claim(t, open(t, withParam(t, dsn, "catalog", "a")))
	require.Eventually(t, func() bool { return alsoA.woken.Load() == 3 }, soon, often)
	alsoA.stop()
	<-alsoA.done
	back := listen("a")
	claim(t, open(t, withParam(t, dsn, "catalog", "a")))
	claim(t, open(t, withParam(t, dsn, "catalog", "b")))
	require.Eventually(t, func() bool { return back.woken.Load() == 2 && b.woken.Load() == 2 }, soon, often)
	require.EqualValues(t, 2, a.woken.Load())
	for _, l := range []*listener{b, back} {
		l.stop()
		<-l.done
	}
}

func TestWatchersThatComeAndGoAllBegin(t *testing.T) {
	t.Parallel()
	server, err := postgres.Connect(t.Context(), testpg.URL(t), postgres.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	for _, watchers := range []int{1, 2, 8} { // few of them often leave nobody
		comeAndGo(t, server, watchers)
	}
}

func comeAndGo(t *testing.T, server *postgres.Server, watchers int) {
	var tasks sync.WaitGroup
	for i := range watchers {
		s, err := server.Open(t.Context(), tenant(i%3))
		require.NoError(t, err)
		tasks.Go(func() {
			for range 25 {
				ctx, cancel := context.WithTimeout(t.Context(), soon)
				err := s.Watch(ctx, cancel)
				if !errors.Is(err, context.Canceled) {
					t.Errorf("a watcher that was to begin: %v", err)
				}
			}
		})
	}
	tasks.Wait()
}

// Claims that a stopped process blocks leave connections to the commits of
// other catalogs.
func TestBlockedClaimsDoNotHoldUpOtherCatalogs(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	server, err := postgres.Connect(t.Context(), dsn, postgres.Config{MaxConns: 2})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	free, err := server.Open(t.Context(), "free")
	require.NoError(t, err)
	head := claim(t, free)
	blocker := claimed(t, dsn, "stopped")
	defer blocker.Abandon()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	done := make(chan error, 3)
	for range 3 {
		s, err := server.Open(t.Context(), "stopped")
		require.NoError(t, err)
		go func() { _, err := s.Claim(ctx); done <- err }()
	}
	waiting(t, dsn)
	require.NoError(t, free.Append(within(t, soon), head, next(head)))
	cancel()
	for range 3 {
		fails(t, <-done, exitcodes.None, driver.NotApplied)
	}
}

// claimed returns a claim under way, of a process of its own.
func claimed(t *testing.T, dsn, name string) driver.Claiming {
	t.Helper()
	c, err := open(t, withParam(t, dsn, "catalog", name)).Claim(within(t, soon))
	require.NoError(t, err)
	return c
}

// What one catalog's head has wrong is told to that catalog alone.
func TestHeadsThatAreReadTogetherFailApart(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	server, err := postgres.Connect(t.Context(), dsn, postgres.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	names := []string{"good", "spoilt", "headless", "empty"}
	want := map[string]driver.Head{}
	stores := map[string]*postgres.Store{}
	for _, name := range names {
		stores[name], err = server.Open(t.Context(), name)
		require.NoError(t, err)
		if name != "empty" {
			want[name] = claim(t, stores[name])
		}
	}
	testpg.Exec(t, dsn, `update fencepost.head set claim = '{}' where catalog = 'spoilt'`,
		`delete from fencepost.head where catalog = 'headless'`)
	release := holdLiveness(t, dsn, stores["good"])
	var tasks sync.WaitGroup
	for range 20 {
		for _, name := range names {
			tasks.Go(func() {
				head, err := stores[name].Head(within(t, soon))
				if name == "good" || name == "empty" {
					if err != nil || head != want[name] {
						t.Errorf("%s: %v, %v", name, head, err)
					}
				} else if !errors.Is(err, driver.ErrCorrupt) {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
	}
	release()
	tasks.Wait()
}

// holdLiveness makes the server slow to answer for heads, until release is
// called, so that further ones gather.
func holdLiveness(t *testing.T, dsn string, s *postgres.Store) (release func()) {
	t.Helper()
	_, err := s.Head(within(t, soon))
	require.NoError(t, err)
	conn := testpg.Connect(t, dsn)
	_, err = conn.Exec(t.Context(), `begin; lock table fencepost.head in access exclusive mode`)
	require.NoError(t, err)
	for range 2 {
		go func() { _, _ = s.Head(t.Context()) }()
	}
	waiting(t, dsn)
	return func() {
		_, err := conn.Exec(t.Context(), `rollback`)
		require.NoError(t, err)
	}
}
