package demo

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fencepost/fencepost/fence"
)

const (
	thinkTime   = 2 * time.Millisecond  // between two writes of one client
	retryTime   = 10 * time.Millisecond // before a client connects again
	lastAnswers = 5 * time.Second       // for the answers under way when the load ends
)

// A load is the clients of one round. They can be held back all at once.
type load struct {
	ledger   *ledger
	patience time.Duration
	gate     sync.RWMutex // held for reading while a write is under way
	quit     chan struct{}
	ctx      context.Context
	cut      context.CancelFunc
	wg       sync.WaitGroup
}

func newLoad(ctx context.Context, l *ledger, patience time.Duration) *load {
	ctx, cut := context.WithCancel(ctx)
	return &load{ledger: l, patience: patience, quit: make(chan struct{}), ctx: ctx, cut: cut}
}

// add starts one client.
func (l *load) add(name, address string, stable bool) {
	c := &client{load: l, name: name, address: address, stable: stable}
	l.wg.Go(c.run)
}

// hold waits until no write is under way, and lets none begin until release is
// called.
func (l *load) hold() (release func()) {
	l.gate.Lock()
	return l.gate.Unlock
}

// end lets every client finish the write that is under way, and joins them.
func (l *load) end() {
	close(l.quit)
	defer time.AfterFunc(lastAnswers, l.cut).Stop()
	l.wg.Wait()
	l.cut()
}

func (l *load) ended() bool {
	select {
	case <-l.quit:
		return true
	case <-l.ctx.Done():
		return true
	default:
		return false
	}
}

// A client writes one key after the other, and each key once.
type client struct {
	load    *load
	name    string
	address string
	stable  bool

	seq   int
	conn  *conn // nil while there is none
	token fence.Token
	stop  func() bool // of the hook that closes conn with the load's context
}

func (c *client) run() {
	defer c.hangUp()
	for !c.load.ended() {
		if c.conn == nil && !c.connect() {
			c.pause(retryTime)
			continue
		}
		if c.write() {
			c.pause(thinkTime)
			continue
		}
		c.hangUp()
		c.pause(retryTime)
	}
}

// connect also asks who answers there: a server holds one token in its life.
func (c *client) connect() bool {
	conn, err := dial(c.load.ctx, c.address)
	if err != nil {
		return false
	}
	c.conn = conn
	c.stop = context.AfterFunc(c.load.ctx, func() { _ = conn.Close() })
	closing := make(chan struct{})
	defer close(closing)
	go func() { // a load that ends does not wait for a server that leads
		select {
		case <-c.load.quit:
			_ = conn.Close()
		case <-closing:
		}
	}()
	if c.token, err = conn.token(c.load.patience); err != nil {
		c.hangUp()
		return false
	}
	return true
}

// write sends one write and notes its fate. It reports whether the connection
// is good for another one.
func (c *client) write() bool {
	c.load.gate.RLock()
	defer c.load.gate.RUnlock()
	if c.load.ended() {
		return true
	}
	c.seq++
	key := fmt.Sprintf("%s:%d", c.name, c.seq)
	_, err := c.conn.do(c.load.patience, "SET", key, valueOf(key))
	c.load.ledger.add(write{key: key, token: c.token, stable: c.stable, fate: fateOf(err), at: time.Now()})
	return err == nil
}

func (c *client) hangUp() {
	if c.conn != nil {
		c.stop()
		_ = c.conn.Close()
		c.conn = nil
	}
}

func (c *client) pause(d time.Duration) { rest(c.load.ctx, d) }
