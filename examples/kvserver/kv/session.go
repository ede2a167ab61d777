package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/tidwall/redcon"
)

// maxBuffered bounds the replies that wait for those of later batches, and the
// buffer that an idle session keeps.
const maxBuffered = 1 << 20

// A session is one client's connection. It is used by one goroutine.
type session struct {
	server *Server
	id     uint64
	conn   net.Conn
	in     *bounded
	name   string       // as CLIENT SETNAME gave it
	multi  *transaction // nil outside of MULTI
	out    []byte       // replies not yet sent
	hops   int          // servers that this client's commands came through
	up     *upstream    // to the server that leads; nil where none was needed yet
}

func (s *Server) newSession(conn net.Conn) *session {
	return &session{
		server: s, id: s.sessions.Add(1), conn: conn,
		in: &bounded{conn: conn, limit: s.cfg.MaxRequest},
	}
}

// serve answers the client until it leaves, breaks the protocol, or its
// connection is closed.
func (s *session) serve(ctx context.Context) {
	s.server.connected.Add(1)
	defer s.server.connected.Add(-1)
	defer func() { s.up.close() }()
	commands := redcon.NewReader(s.in)
	for {
		cmds, err := s.read(commands)
		if err != nil {
			s.farewell(err)
			return
		}
		quit := s.answer(ctx, cmds)
		if s.send() != nil || quit || s.in.over {
			return
		}
	}
}

// read returns the commands that have arrived together. The parser trusts the
// lengths that a client claims, and may panic on absurd ones.
func (s *session) read(commands *redcon.Reader) (cmds []redcon.Command, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("Protocol error: invalid bulk length") //nolint:staticcheck // Redis' text
		}
	}()
	s.in.taken = 0
	return commands.ReadCommands()
}

// farewell tells a client that broke the protocol why it is left. Where the
// connection itself has ended there is nobody to tell.
func (s *session) farewell(err error) {
	if s.in.err != nil && !errors.Is(s.in.err, errRequestTooLarge) {
		return
	}
	s.out = redcon.AppendError(s.out, "ERR "+err.Error())
	_ = s.send()
}

// send sends the replies.
func (s *session) send() error {
	_, err := s.conn.Write(s.out)
	if cap(s.out) > maxBuffered {
		s.out = nil
	}
	s.out = s.out[:0]
	return err
}

// answer runs commands and appends their replies. It reports whether the client
// asked to be left, or speaks HTTP, and ignores what stands behind that.
func (s *session) answer(ctx context.Context, cmds []redcon.Command) (quit bool) {
	units := make([]unit, 0, len(cmds))
	for _, cmd := range cmds {
		s.server.processed.Add(1)
		name := strings.ToLower(string(cmd.Args[0]))
		if isHTTP(name, cmd.Args) {
			quit = true
			break
		}
		units = append(units, s.take(name, cmd.Args))
		if name == "quit" {
			quit = true
			break
		}
	}
	s.run(ctx, units)
	return quit
}

// isHTTP reports whether a command is the first line or a header of an HTTP
// request. A web page can make a browser send one here, with commands in its body
// that this host alone may give.
func isHTTP(name string, args [][]byte) bool {
	switch name {
	case "post", "put", "head", "delete", "options", "patch", "trace", "connect":
		return true
	case "get":
		return len(args) == 3 && bytes.HasPrefix(args[2], []byte("HTTP/"))
	}
	return strings.HasSuffix(name, ":")
}

// take makes a unit of a command, or puts it into the transaction.
func (s *session) take(name string, args [][]byte) unit {
	switch name {
	case "multi", "exec", "discard":
		return s.transact(name, args)
	}
	o, err := s.server.parse(name, args)
	o.args = args
	switch {
	case s.multi != nil && name != "quit":
		return s.multi.queue(o, err, sizeOf(args), s.server.cfg.MaxRequest)
	case err != nil:
		return answered(errorLine(err.Error()))
	}
	return unit{ops: []op{o}}
}

var errRequestTooLarge = errors.New("Protocol error: the request is too large") //nolint:staticcheck // Redis' way to begin

// bounded reads from a connection, up to a limit per request, and remembers why
// reading ended.
type bounded struct {
	conn  net.Conn
	limit int
	taken int
	err   error
	over  bool // reads are over, and what had arrived was read
}

// stillComing is how long a connection whose reads are over is read once more, and
// for how long what comes after that is waited for and dropped. To close a connection
// with commands unread would take replies from the client that it has not read yet.
const stillComing = 5 * time.Millisecond

func (b *bounded) Read(p []byte) (int, error) {
	if b.taken >= b.limit {
		b.err = fmt.Errorf("%w: more than %d bytes", errRequestTooLarge, b.limit)
		return 0, b.err
	}
	p = p[:min(len(p), b.limit-b.taken)]
	n, err := b.conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
		n, err = b.look(p)
	}
	b.taken += n
	b.err = err
	return n, err
}

// look reads what has arrived on a connection whose reads are over, once.
func (b *bounded) look(p []byte) (int, error) {
	if b.over {
		return 0, os.ErrDeadlineExceeded
	}
	b.over = true
	if err := b.conn.SetReadDeadline(time.Now().Add(stillComing)); err != nil {
		return 0, err
	}
	return b.conn.Read(p)
}

// leave closes a connection. The client reads all replies, and then that there are no
// more; commands that it sends before it has read that are dropped.
func leave(conn net.Conn) {
	defer conn.Close()
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if conn.SetReadDeadline(time.Now().Add(stillComing)) == nil {
		_, _ = io.Copy(io.Discard, conn) // until the client closes it too
	}
}
