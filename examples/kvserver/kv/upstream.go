package kv

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/tidwall/redcon"
)

// An upstream is a session's connection to the server that leads.
type upstream struct {
	address string
	conn    net.Conn
	in      *bufio.Reader
	leads   bool // it did what it was sent last
}

// dialTimeout bounds one try to connect.
const dialTimeout = time.Second

// to returns a connection to address: u where it is one, else a new one.
func (u *upstream) to(ctx context.Context, address string, hops int) (*upstream, error) {
	if u != nil && u.address == address {
		return u, nil
	}
	u.close()
	bounded, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(bounded, "tcp", address)
	if err != nil {
		return nil, err
	}
	u = &upstream{address: address, conn: conn, in: bufio.NewReader(conn)}
	if err := u.greet(hops); err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

// greet says through how many servers the commands come.
func (u *upstream) greet(hops int) error {
	hello := redcon.AppendArray(nil, 2)
	hello = redcon.AppendBulkString(redcon.AppendBulkString(hello, hopCommand), strconv.Itoa(hops))
	if err := u.send(hello, dialTimeout); err != nil {
		return err
	}
	reply, err := u.reply(nil)
	if err == nil && !bytes.HasPrefix(reply, []byte("+OK")) {
		err = fmt.Errorf("it does not take forwarded commands: %s", bytes.TrimSpace(reply))
	}
	return err
}

func (u *upstream) close() {
	if u != nil {
		_ = u.conn.Close()
	}
}

// exchange sends units and returns their replies, as far as they came.
func (u *upstream) exchange(units []unit, timeout time.Duration) (replies [][]byte, err error) {
	var text []byte
	expect := make([]int, len(units))
	for i, unit := range units {
		r := requestOf(unit)
		text, expect[i] = append(text, r.text...), r.replies
	}
	sent := make(chan error, 1)
	if err := u.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	go func() { // a server that answers while it reads would wait for us for ever
		_, err := u.conn.Write(text)
		sent <- err
	}()
	for _, n := range expect {
		reply, err := u.last(n)
		if err != nil {
			_ = u.conn.Close()
			<-sent
			return replies, err
		}
		replies = append(replies, reply)
	}
	return replies, <-sent
}

func (u *upstream) send(text []byte, timeout time.Duration) error {
	if err := u.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := u.conn.Write(text)
	return err
}

// last reads n replies and returns the last one.
func (u *upstream) last(n int) (reply []byte, err error) {
	for range n {
		if reply, err = u.reply(nil); err != nil {
			return nil, err
		}
	}
	return reply, nil
}

// maxReplyDepth bounds arrays within arrays.
const maxReplyDepth = 4

var errReply = errors.New("the other server breaks the protocol")

// reply appends one reply, byte for byte, to b.
func (u *upstream) reply(b []byte) ([]byte, error) { return u.nested(b, maxReplyDepth) }

func (u *upstream) nested(b []byte, depth int) ([]byte, error) {
	line, err := u.in.ReadBytes('\n')
	if err != nil {
		return b, err
	}
	b = append(b, line...)
	switch line[0] {
	case '+', '-', ':':
		return b, nil
	case '$', '*':
	default:
		return b, errReply
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(line[1:])))
	switch {
	case err != nil || n < -1 || depth == 0:
		return b, errReply
	case n == -1:
		return b, nil
	case line[0] == '$':
		return u.bulk(b, n)
	}
	for range n {
		if b, err = u.nested(b, depth-1); err != nil {
			return b, err
		}
	}
	return b, nil
}

// bulk appends n bytes and the end of their line, in pieces, as they come: the
// length is only what the other side claims.
func (u *upstream) bulk(b []byte, n int) ([]byte, error) {
	const piece = 64 << 10
	for n += len("\r\n"); n > 0; {
		size := min(n, piece)
		at := len(b)
		b = append(b, make([]byte, size)...)
		if _, err := io.ReadFull(u.in, b[at:]); err != nil {
			return b, err
		}
		n -= size
	}
	return b, nil
}
