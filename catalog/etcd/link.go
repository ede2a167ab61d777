package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
)

// A link remembers why the last attempt to connect failed. gRPC keeps only
// its text, and a call that waits for a connection ends with nothing but
// "context deadline exceeded", whether the server is down or its certificate
// is not to be trusted.
type link struct {
	last atomic.Pointer[error]
}

func (l *link) set(err error) { l.last.Store(&err) }
func (l *link) clear()        { l.last.Store(nil) }

// explain returns err together with the reason why there is no connection, if
// there is none.
func (l *link) explain(conn *grpc.ClientConn, err error) error {
	reason := l.last.Load()
	if reason == nil || !waits(err) || conn != nil && conn.GetState() == connectivity.Ready {
		return err
	}
	return fmt.Errorf("%w: %w", err, *reason)
}

// options returns what makes gRPC report to l.
func (l *link) options(cfg *tls.Config) []grpc.DialOption {
	plain := cfg == nil
	dialer := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		switch {
		case err != nil:
			l.set(err)
		case plain:
			conn = &firstRead{Conn: conn, link: l}
		}
		return conn, err
	})
	if plain {
		return []grpc.DialOption{dialer}
	}
	creds := handshakes{TransportCredentials: credentials.NewTLS(cfg), link: l, name: cfg.ServerName}
	return []grpc.DialOption{dialer, grpc.WithTransportCredentials(creds)}
}

// handshakes are credentials that report how the handshake ended.
type handshakes struct {
	credentials.TransportCredentials
	link *link
	name string // that the server's certificate must have; empty for the host of its address
}

func (h handshakes) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if h.name != "" {
		authority = h.name // etcd's client asks for the host of the address, whatever tls.Config says
	}
	conn, info, err := h.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		h.link.set(err)
		return conn, info, err
	}
	return &firstRead{Conn: conn, link: h.link}, info, nil
}

func (h handshakes) Clone() credentials.TransportCredentials {
	return handshakes{TransportCredentials: h.TransportCredentials.Clone(), link: h.link, name: h.name}
}

// errSilent means that a server ended a connection before it said anything, as
// one does that ends, one that wants TLS and gets plain text, and one whose word
// about the client's certificate was lost with the connection.
var errSilent = errors.New("the server ended the connection without a word")

// A firstRead is a connection that reports its first answer: with TLS 1.3 a
// server refuses a client's certificate only after the handshake.
type firstRead struct {
	net.Conn
	link *link
	done bool // gRPC reads from one goroutine
}

func (c *firstRead) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.done {
		c.done = true
		switch {
		case err == nil:
			c.link.clear()
		case remoteAlert(err):
			c.link.set(err)
		case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
			c.link.set(fmt.Errorf("%w: %w", errSilent, err))
		}
	}
	return n, err
}

// remoteAlert reports whether err is a TLS alert of the other side. Package
// crypto/tls exports no type for it, but the field Op, which it documents by
// its tests only; so a miss here costs the disposition retry, nothing else.
func remoteAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
