package etcd

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/fencepost/fencepost/internal/gather"
)

// A Server is an etcd cluster as one process reaches it: one client, over which
// any number of catalogs are opened. Its methods may be called concurrently.
//
// The client has one connection, to one endpoint at a time, and all catalogs'
// watches come over it. Heads that catalogs ask for at the same time are read
// by one Txn for 128 of them. Package catalog polls all catalogs of a process at
// the same instants, so that the polls of 1,000 idle ones are about 40 Txns a
// second at its default PollInterval of 250 ms.
type Server struct {
	links *links
	base  string // prefix of every catalog's prefix, or ""

	mu     sync.Mutex
	stores map[*Store]struct{} // nil after Close
}

// Connect returns the server at url, which is as [Open] has it, but may leave
// out the prefix. Like Open it asks the server nothing.
func Connect(ctx context.Context, url string, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	to, err := parse(url, cfg, false)
	if err != nil {
		return nil, configError(err)
	}
	return &Server{links: newLinks(ctx, to, cfg), base: to.prefix, stores: map[*Store]struct{}{}}, nil
}

// Open returns the catalog beneath prefix, which is itself beneath the prefix
// of the server's URL if that has one. Its Close leaves the client open.
func (s *Server) Open(ctx context.Context, prefix string) (*Store, error) {
	if prefix == "" || strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") {
		return nil, configError(errors.New("a catalog needs a prefix, without a / at its ends"))
	}
	if s.base != "" {
		prefix = s.base + "/" + prefix
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stores == nil {
		store := newStore(ctx, s.links, prefix)
		return nil, store.fail("open", errClosed, read)
	}
	store := newStore(ctx, s.links, prefix)
	store.release = func() error { s.forget(store); return nil }
	s.stores[store] = struct{}{}
	return store, nil
}

func (s *Server) forget(store *Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stores, store)
}

// Close closes the catalogs that are open still, at once with each other, and
// then the client unless it was handed in.
func (s *Server) Close() error {
	s.mu.Lock()
	stores := s.stores
	s.stores = nil
	s.mu.Unlock()
	if stores == nil {
		return nil
	}
	var closing sync.WaitGroup
	for store := range stores {
		closing.Go(func() { store.shut() })
	}
	closing.Wait()
	return s.links.close()
}

// links are the client of a Server, or of a Store that has its own.
type links struct {
	to    target
	ttl   time.Duration
	log   *slog.Logger
	given bool // the client was handed in
	link  *link
	heads *gather.Group[*Store, found]

	root context.Context // of the client; ends in close
	end  context.CancelFunc

	stream atomic.Int64 // number of the stream on which watches begin

	dialling chan struct{} // held while the client is made

	mu     sync.Mutex
	client *clientv3.Client // nil until the first call
	closed bool
}

func newLinks(ctx context.Context, to target, cfg Config) *links {
	l := &links{
		to: to, ttl: cfg.ClaimTTL, log: cfg.Logger,
		given: cfg.Client != nil, client: cfg.Client, link: new(link), dialling: make(chan struct{}, 1),
	}
	l.heads = gather.New(lanes, headsAtOnce, lookAlone, l.lookTogether)
	l.root, l.end = context.WithCancel(context.WithoutCancel(ctx))
	return l
}

// close closes the client unless it was handed in. The stores are closed before.
func (l *links) close() error {
	l.heads.Close()
	l.mu.Lock()
	client := l.client
	l.closed = true
	l.mu.Unlock()
	l.end()
	if client == nil || l.given {
		return nil
	}
	if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// dial returns the client. With a password, making one is a request of its
// own, which is why that waits for the first call and is bounded by its
// context.
func (l *links) dial(ctx context.Context) (*clientv3.Client, error) {
	if client, err := l.current(ctx); client != nil || err != nil {
		return client, err
	}
	select {
	case l.dialling <- struct{}{}:
		defer func() { <-l.dialling }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if client, err := l.current(ctx); client != nil || err != nil {
		return client, err
	}
	client, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	return l.keep(client)
}

func (l *links) current(ctx context.Context) (*clientv3.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	return l.client, ctx.Err()
}

// keep makes client the links' own, unless they were closed meanwhile.
func (l *links) keep(client *clientv3.Client) (*clientv3.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errors.Join(errClosed, client.Close())
	}
	l.client = client
	return client, nil
}

func (l *links) connect(ctx context.Context) (*clientv3.Client, error) {
	wait := defaultTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(time.Until(deadline), time.Millisecond)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: l.to.endpoints(), Username: l.to.user, Password: l.to.password, TLS: l.to.tls,
		Context: l.root, DialTimeout: wait, DialOptions: l.link.options(l.to.tls),
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		// One attempt: the client would send a write again where a server
		// answers that the write was cancelled or out of time.
		MaxUnaryRetries:    1,
		MaxCallRecvMsgSize: maxAnswer,
		Logger:             zap.NewNop(),
	})
	if err != nil {
		return nil, err
	}
	return client, nil
}

// handle returns the client's connection, or nil where there is none.
func (l *links) handle() *grpc.ClientConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil {
		return nil
	}
	return l.client.ActiveConnection()
}
