package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
)

var _ driver.Scratcher = (*Store)(nil)

const (
	// leastRacers is how many stores race in a scratch place at least, and
	// mostWays over how many connections besides the store's own at most.
	leastRacers = 3
	mostWays    = 8

	// wayPatience is how long an address may take to answer before it is left
	// out of a check.
	wayPatience = 250 * time.Millisecond
)

// scratch is the prefix of the scratch places. A place is a catalog beneath it.
func (k keys) scratch() string { return k.prefix + "/scratch/" }

// Scratch opens a catalog of its own beneath the prefix. One of its stores uses
// the client of s, and one each a connection of its own to every address of the
// URL's hosts that answers: a second cluster behind one of the names, such as a
// clone, is found only so. A client that was handed in has the ways that it has.
func (s *Store) Scratch(ctx context.Context) (driver.Scratch, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	if _, err := s.dial(ctx); err != nil {
		return driver.Scratch{}, s.fail("scratch", err, read)
	}
	place := s.keys.scratch() + driver.NewScratchName()
	ways := s.ways(ctx)
	by := append([]*cluster{s.cluster}, ways...)
	for len(by) < leastRacers {
		by = append(by, s.cluster)
	}
	var stores []driver.Store
	for _, c := range by {
		store := newStore(ctx, c, place)
		store.name, store.release = c.to.String(), func() error { return nil }
		stores = append(stores, store)
	}
	return driver.Scratch{Stores: stores, Discard: func(ctx context.Context) error {
		ctx, cancel := bound(ctx)
		defer cancel()
		return s.discardScratch(ctx, place, stores, ways)
	}}, nil
}

// ways returns a connection of its own to each address of the hosts, if it
// answers. The caller closes them.
func (c *cluster) ways(ctx context.Context) (ways []*cluster) {
	if c.cfg.Client != nil {
		return nil
	}
	to := c.addresses(ctx)
	if c.to.user == "" { // else each costs the server a hash of the password
		for n := len(to); n > 0 && len(to) < leastRacers-1; n++ { // what is behind one address may be several servers
			to = append(to, to[0])
		}
	}
	answered := make([]*cluster, min(len(to), mostWays))
	var dialling sync.WaitGroup
	for i := range answered {
		dialling.Go(func() { answered[i] = c.way(ctx, to[i]) })
	}
	dialling.Wait()
	for _, w := range answered {
		if w != nil {
			ways = append(ways, w)
		}
	}
	return ways
}

// way returns a connection to one address, or nil if that does not answer soon.
func (c *cluster) way(ctx context.Context, to target) *cluster {
	ctx, cancel := context.WithTimeout(ctx, wayPatience)
	defer cancel()
	w := newCluster(c.root, to, c.cfg)
	if _, err := w.Get(ctx, keys{to.prefix}.scratch(), clientv3.WithKeysOnly()); err != nil {
		c.log.Info("an address was left out of the store's check, since it does not answer", "store", w.to.String(), "error", err)
		_ = w.close() // the first error says more
		return nil
	}
	return w
}

// addresses returns one target for each address of each host.
func (c *cluster) addresses(ctx context.Context) (all []target) {
	seen := make(map[string]bool)
	for _, hostport := range c.to.hosts {
		host, port, err := net.SplitHostPort(hostport)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, wayPatience)
		found, err := c.lookup(ctx, host)
		cancel()
		if err != nil || len(found) == 0 {
			found = []string{host} // and dialling says why
		}
		for _, address := range found {
			to := c.to
			to.hosts = []string{net.JoinHostPort(address, port)}
			to.tls = asHost(c.to.tls, host)
			if !seen[to.hosts[0]] {
				seen[to.hosts[0]] = true
				all = append(all, to)
			}
		}
	}
	return all
}

// asHost returns the settings of a connection to an address of host.
func asHost(cfg *tls.Config, host string) *tls.Config {
	if cfg == nil || cfg.ServerName != "" {
		return cfg
	}
	cfg = cfg.Clone()
	cfg.ServerName = host
	return cfg
}

// discardScratch ends the stores, and removes the place, and those that dead
// processes left, by every way: a clone has keys of its own.
func (s *Store) discardScratch(ctx context.Context, place string, stores []driver.Store, ways []*cluster) error {
	var closing sync.WaitGroup
	for _, store := range stores {
		closing.Go(func() { _ = store.Close() }) // nothing is released by it
	}
	closing.Wait()
	errs := make([]error, len(ways)+1)
	for i, c := range append([]*cluster{s.cluster}, ways...) {
		closing.Go(func() { errs[i] = c.discardPlace(ctx, s.keys, place) })
	}
	closing.Wait()
	for _, c := range ways {
		errs = append(errs, c.close())
	}
	return s.fail("discard", errors.Join(errs...), sent)
}
