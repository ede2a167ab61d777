package demo

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// A proxy is the stable address: it forwards connections to the server that
// leads, and cuts those to a server that no longer does. While nobody leads, a
// new connection waits.
type proxy struct {
	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu      sync.Mutex
	target  string        // where the leader listens; empty for none
	changed chan struct{} // closed when target changes
	links   map[*link]struct{}
}

// A link is one forwarded connection.
type link struct {
	target         string
	client, server net.Conn
}

func (l *link) cut() {
	_ = l.client.Close()
	_ = l.server.Close()
}

func startProxy(ctx context.Context) (*proxy, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: ln, changed: make(chan struct{}), links: make(map[*link]struct{})}
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.wg.Go(p.accept)
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// close ends every connection and joins what was started.
func (p *proxy) close() {
	p.cancel()
	_ = p.listener.Close()
	p.forward("")
	p.wg.Wait()
}

// forward says who leads from now on.
func (p *proxy) forward(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if target != p.target {
		p.target = target
		close(p.changed)
		p.changed = make(chan struct{})
	}
	for l := range p.links {
		if l.target != target {
			l.cut()
		}
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	l, ok := p.connect(client)
	if !ok {
		return
	}
	defer p.remove(l)
	var both sync.WaitGroup
	carry := func(to, from net.Conn) {
		defer l.cut() // the end of one direction is the end of both
		_, _ = io.Copy(to, from)
	}
	both.Go(func() { carry(l.server, l.client) })
	both.Go(func() { carry(l.client, l.server) })
	both.Wait()
}

// connect waits for a leader and connects to it.
func (p *proxy) connect(client net.Conn) (*link, bool) {
	for p.ctx.Err() == nil {
		target := p.await()
		server, err := net.DialTimeout("tcp", target, dialTime)
		if err != nil {
			rest(p.ctx, 5*time.Millisecond)
			continue
		}
		l := &link{target: target, client: client, server: server}
		if p.add(l) {
			return l, true
		}
		_ = server.Close() // another leads by now
	}
	return nil, false
}

// await returns where the leader listens, once there is one.
func (p *proxy) await() string {
	for {
		p.mu.Lock()
		target, changed := p.target, p.changed
		p.mu.Unlock()
		if target != "" || p.ctx.Err() != nil {
			return target
		}
		select {
		case <-changed:
		case <-p.ctx.Done():
		}
	}
}

func (p *proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.target != p.target || p.ctx.Err() != nil {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

func (p *proxy) remove(l *link) {
	l.cut()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}
