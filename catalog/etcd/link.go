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
	"time"

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

	// known is the local address of the connection over which the server has said
	// of which cluster it is; nil if there is none.
	known atomic.Pointer[string]
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
		if err == nil {
			l.known.Store(nil)
		}
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
	again := func() error { return h.listen(authority, raw.RemoteAddr()) }
	return &firstRead{Conn: conn, link: h.link, again: again}, info, nil
}

// listenTimeout bounds the second handshake with a server that ended a
// connection without a word.
const listenTimeout = time.Second

// listen connects once more, says nothing behind the handshake, and returns
// what the server says then. A server that is still to read something when it
// refuses a client's certificate resets the connection, and the word about that
// is lost with it.
func (h handshakes) listen(authority string, addr net.Addr) error {
	ctx, cancel := context.WithTimeout(context.Background(), listenTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
	if err != nil {
		return err
	}
	defer raw.Close()
	conn, _, err := h.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	_, err = conn.Read(make([]byte, 1))
	return err
}

func (h handshakes) Clone() credentials.TransportCredentials {
	return handshakes{TransportCredentials: h.TransportCredentials.Clone(), link: h.link, name: h.name}
}

// errSilent means that a server ended a connection before it said anything, as
// one does that ends, one that wants TLS and gets plain text, and one whose word
// about the client's certificate was lost twice.
var errSilent = errors.New("the server ended the connection without a word")

// A firstRead is a connection that reports its first answer: with TLS 1.3 a
// server refuses a client's certificate only after the handshake.
type firstRead struct {
	net.Conn
	link  *link
	again func() error // says why a server may have said nothing; nil for plain text
	done  bool         // gRPC reads from one goroutine
	reset atomic.Bool  // the server's side was gone when something was written
}

func (c *firstRead) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if gone(err) {
		c.reset.Store(true) // gRPC closes the connection, and what Read says is of that
	}
	return n, err
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
		case gone(err), c.reset.Load():
			c.link.set(c.silence(err))
		}
	}
	return n, err
}

// gone reports whether err says that the other side has ended the connection.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// silence is why a connection ended, with err, before the server said anything.
func (c *firstRead) silence(err error) error {
	if c.again != nil {
		if reason := c.again(); remoteAlert(reason) {
			return reason
		}
	}
	return fmt.Errorf("%w: %w", errSilent, err)
}

// remoteAlert reports whether err is a TLS alert of the other side. Package
// crypto/tls exports no type for it, but the field Op, which it documents by
// its tests only; so a miss here costs the disposition retry, nothing else.
func remoteAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
