package etcd

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// A Server is an etcd cluster as one process reaches it, over which any number of
// catalogs are opened. Its methods may be called concurrently.
//
// It has one connection to each endpoint. Calls and watches of all catalogs go to
// one of them, until that does not answer. Heads that catalogs ask for at the same
// time are read by one Txn for 128 of them. Package catalog polls all catalogs of a
// process at the same instants, so that the polls of 1,000 idle ones are about 40
// Txns a second at its default PollInterval of 250 ms.
type Server struct {
	cluster *cluster
	base    string // prefix of every catalog's prefix, or ""

	mu     sync.Mutex
	stores map[*Store]struct{} // nil after Close
}

// Connect returns the server at url, which is as [Open] has it, but may leave
// out the prefix. Like Open it asks the server nothing.
func Connect(ctx context.Context, url string, cfg Config) (*Server, error) {
	to, cfg, err := parse(url, cfg, false)
	if err != nil {
		return nil, configError(err)
	}
	return &Server{cluster: newCluster(ctx, to, cfg), base: to.prefix, stores: map[*Store]struct{}{}}, nil
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
		store := newStore(ctx, s.cluster, prefix)
		return nil, store.fail("open", errClosed, read)
	}
	store := newStore(ctx, s.cluster, prefix)
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
	return s.cluster.close()
}
