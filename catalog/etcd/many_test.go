package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testetcd"
)

const (
	many    = 1000
	handful = 10
)

// polled counts how often the head of a store is asked for.
type polled struct {
	*etcd.Store
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
	return catalog.Config{Generation: g, ClaimTimeout: time.Minute, StoreTimeout: 20 * time.Second}
}

func put(t *testing.T, c *catalog.Catalog, value string) error {
	return c.Update(within(t, time.Minute), func(tx *catalog.Tx) error {
		return catalog.Bytes("entries").Set(tx, "key", []byte(value))
	})
}

// countedClient returns a client as Config.Client wants it, and the number of
// requests that it has sent.
func countedClient(t *testing.T, url string) (*clientv3.Client, *atomic.Int64) {
	t.Helper()
	requests := new(atomic.Int64)
	count := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		requests.Add(1)
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{strings.Split(url, "/")[2]}, MaxUnaryRetries: 1, MaxCallRecvMsgSize: 8 << 20, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(count)},
	})
	require.NoError(t, err)
	return client, requests
}

func TestAThousandCatalogsAreHeldOverAHandfulOfConnections(t *testing.T) {
	private := testetcd.NewServer(t, testetcd.Options{})
	before := goleak.IgnoreCurrent()
	client, requests := countedClient(t, private.URL())
	server, err := etcd.Connect(t.Context(), "etcd:///fleet", etcd.Config{Client: client})
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
	require.LessOrEqual(t, connections(t, private), handful)

	// What 1,000 idle catalogs cost.
	asked, sent := heads.Load(), requests.Load()
	require.Eventually(t, func() bool { return heads.Load() > asked+5*many }, time.Minute, 5*time.Millisecond)
	asked, sent = heads.Load()-asked, requests.Load()-sent
	t.Logf("%d requests for %d polls", sent, asked)
	require.Less(t, sent, asked/2, "polls share their requests, if fewer on a machine that is busy")

	fenced := map[int]bool{}
	for i := range 10 {
		fenced[i*many/10+i] = true
	}
	others := []interface{ Close() error }{}
	for i := range fenced {
		s, err := etcd.Open(t.Context(), strings.TrimSuffix(private.URL(), "catalog")+"fleet/"+tenant(i), etcd.Config{})
		require.NoError(t, err)
		other, err := catalog.Open(t.Context(), s, process(2))
		require.NoError(t, err)
		others = append(others, other, s)
	}
	for i, c := range held {
		if fenced[i] {
			<-c.Done()
			require.ErrorIs(t, c.Err(), fence.ErrSuperseded)
		}
	}
	for _, other := range others {
		require.NoError(t, other.Close())
	}
	each(t, func(i int) error {
		if fenced[i] {
			return nil
		}
		return errors.Join(put(t, held[i], "again"), held[i].Confirm(t.Context()), held[i].Err())
	})
	require.LessOrEqual(t, connections(t, private), handful)
	each(t, func(i int) error {
		if err := held[i].Close(); !errors.Is(err, fence.ErrSuperseded) == fenced[i] {
			return fmt.Errorf("%s ended with %w", tenant(i), err)
		}
		return nil
	})
	require.NoError(t, server.Close())
	_, err = client.Get(within(t, time.Minute), "any")
	require.NoError(t, err, "the client is the caller's")
	require.NoError(t, client.Close())
	goleak.VerifyNone(t, before)
}

// connections returns how many TCP connections the server has with its clients.
func connections(t *testing.T, server *testetcd.Server) (n int) {
	t.Helper()
	port, err := strconv.Atoi(server.URL()[strings.LastIndex(server.URL(), ":")+1 : strings.LastIndex(server.URL(), "/")])
	require.NoError(t, err)
	local := fmt.Sprintf("0100007F:%04X", port)
	sockets, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", server.PID()))
	require.NoError(t, err)
	owned := map[string]bool{}
	for _, path := range sockets {
		if link, err := os.Readlink(path); err == nil {
			owned[strings.TrimSuffix(strings.TrimPrefix(link, "socket:["), "]")] = true
		}
	}
	table, err := os.ReadFile("/proc/net/tcp")
	require.NoError(t, err)
	for line := range strings.Lines(string(table)) {
		const address, state, inode, established = 1, 3, 9, "01"
		if f := strings.Fields(line); len(f) > inode && f[address] == local && f[state] == established && owned[f[inode]] {
			n++
		}
	}
	require.Positive(t, n)
	return n
}

func TestAServersStoresShareItsClientAndEndWithIt(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	server, err := etcd.Connect(t.Context(), url, etcd.Config{})
	require.NoError(t, err)
	a, err := server.Open(t.Context(), "a")
	require.NoError(t, err)
	b, err := server.Open(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, url+"/a", a.String())
	first := claim(t, a)
	head, err := b.Head(within(t, time.Minute))
	require.NoError(t, err)
	require.Zero(t, head)
	head, err = open(t, url+"/a", etcd.Config{}).Head(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, first.Commit, head.Commit)

	done, begun := make(chan error, 2), make(chan struct{}, 10)
	for _, s := range []*etcd.Store{a, b} {
		go func() { done <- s.Watch(t.Context(), func() { begun <- struct{}{} }) }()
		<-begun
	}
	require.NoError(t, a.Close())
	require.ErrorContains(t, <-done, "the store is closed")
	_, err = a.Head(within(t, time.Minute))
	require.Equal(t, exitcodes.None, classed(t, err).Disposition(), "%v", err)
	claim(t, b)
	<-begun
	require.NoError(t, server.Close())
	require.NoError(t, server.Close())
	require.ErrorContains(t, <-done, "the store is closed")
	_, err = server.Open(t.Context(), "c")
	require.Equal(t, exitcodes.None, classed(t, err).Disposition(), "%v", err)
	for _, prefix := range []string{"", "/x", "x/"} {
		_, err = server.Open(t.Context(), prefix)
		require.Equal(t, exitcodes.Config, classed(t, err).ExitCode(), prefix)
	}
}
