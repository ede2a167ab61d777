package replicas

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A client speaks just enough of the Redis protocol, one request at a time.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

// errNoReply means that a connection broke while a request was under way.
var errNoReply = errors.New("the connection broke before the reply")

func dial(address string, timeout time.Duration) (*client, error) {
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReader(conn)}, nil
}

func (c *client) close() {
	if c != nil {
		_ = c.conn.Close()
	}
}

// call sends one command and returns its reply, an error line with its minus.
func (c *client) call(timeout time.Duration, args ...string) (string, error) {
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&text, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := io.WriteString(c.conn, text.String()); err != nil {
		return "", fmt.Errorf("%w: %w", errNoReply, err)
	}
	line, err := c.in.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoReply, err)
	}
	line = strings.TrimSuffix(line, "\r\n")
	size, bulk := strings.CutPrefix(line, "$")
	if !bulk || size == "-1" {
		return line, nil
	}
	n, err := strconv.Atoi(size)
	if err != nil {
		return "", err
	}
	body := make([]byte, n+len("\r\n"))
	_, err = io.ReadFull(c.in, body)
	return string(body[:n]), err
}

// closed reports whether the server has closed the connection, without waiting.
func (c *client) closed() bool {
	raw, err := c.conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Read(func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = n == 0 && err == nil || err != nil && !errors.Is(err, syscall.EAGAIN)
		return true
	})
	return gone || err != nil
}
