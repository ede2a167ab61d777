package kv

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/fencepost/fencepost/internal/pace"
)

// The waits between two attempts to accept a connection after one failed, such
// as for lack of file descriptors.
const (
	minAcceptWait = 5 * time.Millisecond
	maxAcceptWait = time.Second
)

// Serve answers the clients that connect to ln until ctx ends. Then it closes
// ln, answers what has arrived within DrainTimeout, closes every connection and
// returns nil when none is left. It returns early, with the
// reason, where ln is closed by somebody else.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	conns := newConns(ctx, s.cfg.DrainTimeout)
	defer conns.end()
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	var failing pace.Pace
	for wait := minAcceptWait; ; {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			wait = minAcceptWait
			failing.Succeed(time.Now())
			conns.start(conn, func(ctx context.Context) { s.newSession(conn).serve(ctx) })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			if left, due := failing.Fail(time.Now()); due {
				s.cfg.Logger.WarnContext(ctx, "no connection could be accepted", "err", err, "more", left)
			}
			pause(ctx, wait)
			wait = min(2*wait, maxAcceptWait)
		}
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// conns are the connections of one Serve and their goroutines.
type conns struct {
	serving context.Context // ends when no further command is to be read
	stop    context.CancelFunc
	ctx     context.Context // of commands; ends DrainTimeout later
	cut     context.CancelCauseFunc
	drain   time.Duration
	wg      sync.WaitGroup
}

func newConns(ctx context.Context, drain time.Duration) *conns {
	c := &conns{drain: drain}
	c.serving, c.stop = context.WithCancel(ctx)
	c.ctx, c.cut = context.WithCancelCause(context.WithoutCancel(ctx))
	return c
}

// start serves one connection in a goroutine of its own. When serving ends, its
// reads fail once they have taken what has arrived, and its writes after a while.
func (c *conns) start(conn net.Conn, serve func(context.Context)) {
	c.wg.Go(func() {
		defer leave(conn)
		defer context.AfterFunc(c.serving, func() { c.hurry(conn) })()
		serve(c.ctx)
	})
}

// hurry ends a connection's reads, and bounds its writes.
func (c *conns) hurry(conn net.Conn) {
	now := time.Now()
	_ = conn.SetReadDeadline(now) // fails only where conn is closed already
	_ = conn.SetWriteDeadline(now.Add(c.drain))
}

// end ends serving and joins the connections.
func (c *conns) end() {
	c.stop()
	defer c.cut(errDrained)
	defer time.AfterFunc(c.drain, func() { c.cut(errDrained) }).Stop()
	c.wg.Wait()
}
