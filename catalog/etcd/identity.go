package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// All endpoints of a URL must belong to one cluster, or else a copy of a write
// could land in two stores. So all are asked for their cluster before the first
// request, and each is asked again over every new connection, which takes no request
// for keys before: a server that was restored from a snapshot has the old keys, and is
// of a cluster of its own. A server of another cluster gets no request. If all
// endpoints belong to another one, the cluster was restored as a whole, and the heads
// say what it lost. Over a client that was handed in each is asked once.
//
// With one endpoint nothing is asked: it is all that there is.

var (
	errClusters = errors.New("the endpoints of the URL belong to different clusters")
	errForeign  = errors.New("this server belongs to another cluster than the store")
)

// meetTimeout is how long the first look at all endpoints may take. What has not
// answered by then is asked when it is used.
const meetTimeout = 250 * time.Millisecond

// identity is what the members say of their cluster.
type identity struct {
	mu   sync.Mutex
	id   uint64             // of the cluster that is the store; zero before a member has told
	told map[*member]uint64 // what each member said last
	look *attempt           // at all members, under way; nil if none is
}

// meet looks at all members, until one has told its cluster. It returns an error
// if they are of several.
func (c *cluster) meet(ctx context.Context) error {
	if len(c.members) == 1 {
		return nil
	}
	look, err := c.looking()
	if look == nil {
		return err
	}
	select {
	case <-look.done:
		return look.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// looking returns the look under way, or nil if none is needed.
func (c *cluster) looking() (*attempt, error) {
	i := &c.identity
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.id != 0 || i.look != nil {
		return i.look, nil
	}
	look := &attempt{done: make(chan struct{})}
	if !c.spawn(func() { c.lookAtAll(look) }) {
		return nil, errClosed
	}
	i.look = look
	return look, nil
}

func (c *cluster) lookAtAll(look *attempt) {
	ctx, cancel := context.WithTimeout(c.root, meetTimeout)
	defer cancel()
	found := make([]uint64, len(c.members))
	var asking sync.WaitGroup
	for n, m := range c.members {
		asking.Go(func() {
			if s, err := m.dial(ctx); err == nil {
				found[n], _ = m.clusterOf(ctx, s) // an error shows at the first call
			}
		})
	}
	asking.Wait()
	c.identity.mu.Lock()
	defer c.identity.mu.Unlock()
	look.err = c.identity.agree(c.members, found)
	c.identity.look = nil
	close(look.done)
}

// agree takes the cluster that all members are of which have told one.
func (i *identity) agree(members []*member, found []uint64) error {
	first := -1
	for n, id := range found {
		switch {
		case id == 0:
			continue
		case first < 0:
			first = n
		case id != found[first]:
			return fmt.Errorf("%w: %s is of %s, and %s of %s", errClusters,
				members[first].endpoint, place(found[first]), members[n].endpoint, place(id))
		}
		i.tell(members[n], id)
	}
	if first >= 0 {
		i.id = found[first]
	}
	return nil
}

func (i *identity) tell(m *member, id uint64) {
	if i.told == nil {
		i.told = make(map[*member]uint64)
	}
	i.told[m] = id
}

// belongs notes the cluster of which m says that it is, and refuses m if that is
// not the store.
func (i *identity) belongs(m *member, id uint64, of int, log *slog.Logger) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	news := i.told[m] != id
	i.tell(m, id)
	switch {
	case i.id == id:
		return nil
	case i.id == 0 || i.all(id, of):
		if i.id != 0 {
			log.Warn("all endpoints of the URL belong to another cluster now", "before", place(i.id), "now", place(id))
		}
		i.id = id
		return nil
	case news:
		log.Error("an endpoint of the URL belongs to another cluster than the store: remove it from the URL, or make it a member again",
			"server", m.endpoint, "of", place(id), "store", place(i.id))
	}
	return fmt.Errorf("%w: %s is of %s, and the store is %s", errForeign, m.endpoint, place(id), place(i.id))
}

// all reports whether that many members have told the same cluster.
func (i *identity) all(id uint64, of int) bool {
	for _, told := range i.told {
		if told != id {
			return false
		}
	}
	return len(i.told) == of
}

// sendKnown sends a request over a connection over which m has said of which cluster
// it is. Whenever gRPC takes another connection, m is asked again.
func sendKnown[R any](ctx context.Context, m *member, s *session, send func(context.Context, *session) (R, error)) (result R, err error) {
	for {
		if err := m.recognize(ctx, s); err != nil {
			return result, err
		}
		over := m.link.known.Load()
		if result, err = send(ctx, s); status.Convert(err).Message() != notKnown {
			return result, err
		}
		m.link.known.CompareAndSwap(over, nil) // another call may have asked meanwhile
	}
}

// recognize refuses a member of another cluster. It asks once for each connection;
// a server that can't say is used.
func (m *member) recognize(ctx context.Context, s *session) error {
	if len(m.cluster.members) == 1 || m.link.known.Load() != nil {
		return nil
	}
	var by peer.Peer
	id, err := m.clusterOf(ctx, s, grpc.Peer(&by))
	if err != nil && elsewhere(err) {
		return err
	}
	if id != 0 {
		if err := m.cluster.identity.belongs(m, id, len(m.cluster.members), m.cluster.log); err != nil {
			return err
		}
	}
	over := "" // of a client that was handed in, whose connections are not known
	switch {
	case by.LocalAddr != nil:
		over = by.LocalAddr.String()
	case m.cluster.cfg.Client == nil:
		return status.Error(codes.Unavailable, notKnown)
	}
	m.link.known.Store(&over)
	return nil
}

// notKnown is the text of the error of a request that was not sent.
const notKnown = "the server has not said of which cluster it is over this connection"

// A connectionCheck lets no request for keys onto a connection over which the server
// has not said of which cluster it is. gRPC asks it when it has chosen a connection,
// which a call can neither see nor keep: it may be a new one.
type connectionCheck struct{ link *link }

func (c connectionCheck) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	info, _ := credentials.RequestInfoFromContext(ctx)
	if !strings.HasPrefix(info.Method, "/etcdserverpb.KV/") {
		return nil, nil
	}
	by, _ := peer.FromContext(ctx)
	if over := c.link.known.Load(); over == nil || by == nil || by.LocalAddr == nil || *over != by.LocalAddr.String() {
		return nil, status.Error(codes.Unavailable, notKnown)
	}
	return nil, nil
}

func (connectionCheck) RequireTransportSecurity() bool { return false }

// clusterOf asks a member for its cluster. That needs no right and no quorum.
func (m *member) clusterOf(ctx context.Context, s *session, options ...grpc.CallOption) (uint64, error) {
	if m.cluster.cfg.Client == nil {
		resp, err := pb.NewMaintenanceClient(s.ActiveConnection()).Status(ctx, &pb.StatusRequest{}, options...)
		return resp.GetHeader().GetClusterId(), err
	}
	resp, err := s.Status(ctx, m.endpoint) // else the client would ask any endpoint
	if err != nil {
		return 0, err
	}
	return resp.Header.GetClusterId(), nil
}
