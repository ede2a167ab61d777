package etcd

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/internal/gather"
)

// A cluster is all servers of a URL, used as one. It belongs to a [Server], or to
// a Store that has its own.
//
// Calls and streams begin at one member, the home. A call that gets no answer
// there is sent to the next one too (see race.go). While the home is suspected,
// calls begin at another member; if the home then does not answer a question of
// its own either, the other becomes the home, and the streams move there.
type cluster struct {
	to      target
	cfg     Config
	log     *slog.Logger
	heads   *gather.Group[*Store, found]
	latency latency

	identity identity

	root context.Context // of all clients; ends in close
	end  context.CancelFunc

	lookup func(ctx context.Context, host string) ([]string, error) // of addresses, for a check of the store

	members []*member
	warmed  sync.Once
	number  atomic.Int64 // of the stream on which watches begin

	mu     sync.Mutex
	home   *member
	detour *member // where calls begin while the home is suspected; nil if it isn't
	closed bool
	tasks  sync.WaitGroup
}

func newCluster(ctx context.Context, to target, cfg Config) *cluster {
	c := &cluster{to: to, cfg: cfg, log: cfg.Logger, lookup: net.DefaultResolver.LookupHost}
	c.heads = gather.New(lanes, headsAtOnce, lookAlone, c.lookTogether)
	c.root, c.end = context.WithCancel(context.WithoutCancel(ctx))
	endpoints := to.endpoints()
	if cfg.Client != nil {
		endpoints = cfg.Client.Endpoints()
	}
	if len(endpoints) == 0 { // of a client that has its services from elsewhere
		endpoints = []string{""}
	}
	for _, endpoint := range endpoints {
		c.members = append(c.members, newMember(c, endpoint))
	}
	// Not the same one for every process: otherwise it would have all the load.
	c.home = c.members[rand.IntN(len(c.members))]
	return c
}

// close closes the clients unless one was handed in. The stores are closed before.
func (c *cluster) close() error {
	c.heads.Close()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.tasks.Wait()
	var errs []error
	for _, m := range c.members {
		if err := m.close(); err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// spawn runs task in a goroutine that close joins, and reports whether it does.
func (c *cluster) spawn(task func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.tasks.Go(task)
	return true
}

// first returns the member at which a call begins.
func (c *cluster) first() *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.detour != nil {
		return c.detour
	}
	return c.home
}

// stream returns the home, and a context for a stream there, which also ends when
// the home moves.
func (c *cluster) stream(ctx context.Context) (*member, context.Context, context.CancelFunc) {
	for {
		home := c.residence()
		stream, end := home.stream(ctx)
		if c.residence() == home {
			return home, stream, end
		}
		end() // it has moved meanwhile, so that nothing would end the stream
	}
}

func (c *cluster) residence() *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.home
}

// after returns the member that follows m in the URL.
func (c *cluster) after(m *member) *member {
	for i, other := range c.members {
		if other == m {
			return c.members[(i+1)%len(c.members)]
		}
	}
	return m
}

// answered notes an answer of by, after d, to a request that m got first. If m is
// the home and has not answered, it is asked a question of its own.
func (c *cluster) answered(m, by *member, d time.Duration, err error) {
	if err == nil {
		c.observe(d)
	}
	c.mu.Lock()
	asks := m == c.home && c.detour == nil && m != by
	if asks {
		c.detour = by
	}
	c.mu.Unlock()
	if asks {
		c.spawn(func() { c.examine(m) })
	}
}

// examine asks a suspected home whether it can answer, and leaves it if it
// can't. The question needs a quorum, as those of a catalog do.
func (c *cluster) examine(m *member) {
	ctx, cancel := context.WithTimeout(c.root, max(2*c.patience(0), leastQuestion))
	defer cancel()
	_, err := ask(ctx, m, func(ctx context.Context, s *session) (*clientv3.GetResponse, error) {
		return s.Get(ctx, keys{c.to.prefix}.head(), clientv3.WithCountOnly())
	})
	c.settle(m, err == nil || !elsewhere(err))
}

// settle ends the suspicion of m. Streams leave a home that can't answer.
func (c *cluster) settle(m *member, well bool) {
	c.mu.Lock()
	by := c.detour
	c.detour = nil
	moves := !well && by != nil && m == c.home
	if moves {
		c.home = by
	}
	c.mu.Unlock()
	if moves {
		c.log.Warn("a server of etcd does not answer; another one is asked first", "server", m.endpoint, "instead", by.endpoint)
		c.number.Add(1)
		m.endStreams()
	}
}

// warm connects to every member, once, so that none must be dialled when another
// one fails.
func (c *cluster) warm() {
	c.warmed.Do(func() {
		for _, m := range c.members {
			_, _, _ = m.connected(c.root) // an error shows at the first call
		}
	})
}
