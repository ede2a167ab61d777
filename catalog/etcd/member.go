package etcd

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// A member is one server of the cluster, with a client that speaks to it alone.
// If a client was handed in, each of its endpoints has a member, and they share
// that client: it sends each further request to another endpoint by itself.
type member struct {
	cluster  *cluster
	endpoint string
	link     *link

	mu      sync.Mutex
	session *session // nil until the first call
	attempt *attempt // to connect, under way; nil if none is
	streams context.Context
	leave   context.CancelFunc // ends streams
}

// A session is what a member's client offers.
type session struct{ *clientv3.Client }

// An attempt is one to make a member's client. With a password that is a request
// of its own.
type attempt struct {
	done chan struct{}
	err  error
}

func newMember(c *cluster, endpoint string) *member {
	m := &member{cluster: c, endpoint: endpoint, link: new(link)}
	m.streams, m.leave = context.WithCancel(c.root)
	return m
}

// dial returns the member's client. The attempt to make one goes on if ctx ends,
// for the next call.
func (m *member) dial(ctx context.Context) (*session, error) {
	for {
		session, attempt, err := m.connected(ctx)
		if session != nil || err != nil {
			return session, err
		}
		select {
		case <-attempt.done:
			if attempt.err != nil {
				return nil, attempt.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// connected returns the member's client, or the attempt to make it.
func (m *member) connected(ctx context.Context) (*session, *attempt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session != nil || ctx.Err() != nil {
		return m.session, nil, ctx.Err()
	}
	if m.attempt == nil {
		a := &attempt{done: make(chan struct{})}
		if !m.cluster.spawn(func() { m.connect(a) }) {
			return nil, nil, errClosed
		}
		m.attempt = a
	}
	return nil, m.attempt, nil
}

func (m *member) connect(a *attempt) {
	client, err := m.client()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.attempt = nil; err == nil {
		m.session = &session{client}
		if conn := client.ActiveConnection(); conn != nil {
			conn.Connect()
		}
	}
	a.err = err
	close(a.done)
}

func (m *member) client() (*clientv3.Client, error) {
	c := m.cluster
	if c.cfg.Client != nil {
		return c.cfg.Client, nil
	}
	options := append(m.link.options(c.to.tls), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
		MinConnectTimeout: c.cfg.DialTimeout,
	}))
	if len(c.members) > 1 {
		options = append(options, grpc.WithPerRPCCredentials(connectionCheck{m.link}))
	}
	return clientv3.New(clientv3.Config{
		Endpoints: []string{m.endpoint}, Username: c.to.user, Password: c.to.password, TLS: c.to.tls,
		Context: c.root, DialTimeout: c.cfg.DialTimeout, DialOptions: options,
		DialKeepAliveTime: c.cfg.KeepAlive, DialKeepAliveTimeout: c.cfg.KeepAliveTimeout,
		// One attempt: a further copy of a write is counted where it is sent,
		// in race.go, and nowhere else.
		MaxUnaryRetries:    1,
		MaxCallRecvMsgSize: maxAnswer,
		Logger:             zap.NewNop(),
	})
}

// close closes the member's client, unless that was handed in. No attempt is
// under way any more.
func (m *member) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leave()
	if m.session == nil {
		return nil
	}
	if m.cluster.cfg.Client != nil {
		return nil
	}
	return m.session.Close()
}

// explain returns err with the reason why there is no connection, if there is
// none.
func (m *member) explain(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var conn *grpc.ClientConn
	if m.session != nil {
		conn = m.session.ActiveConnection()
	}
	return m.link.explain(conn, typed(err))
}

// stream returns a context for a stream, which also ends when the member is left
// for another one.
func (m *member) stream(ctx context.Context) (context.Context, context.CancelFunc) {
	m.mu.Lock()
	streams := m.streams
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(streams, cancel)
	return ctx, func() { stop(); cancel() }
}

// endStreams ends the streams that were begun so far.
func (m *member) endStreams() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leave()
	m.streams, m.leave = context.WithCancel(m.cluster.root)
}
