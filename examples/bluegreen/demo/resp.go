package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/fencepost/fencepost/fence"
)

// dialTime bounds how long a connection may take to come about.
const dialTime = time.Second

// A conn is a connection to a server that speaks the Redis protocol.
type conn struct {
	net.Conn
	in *bufio.Reader
}

func dial(ctx context.Context, address string) (*conn, error) {
	c, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, in: bufio.NewReader(c)}, nil
}

// A refusal is an error that the server answered.
type refusal string

func (r refusal) Error() string { return string(r) }

// do sends one command and returns its answer. An error that is no refusal
// means that the answer is not known.
func (c *conn) do(within time.Duration, args ...string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&text, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := io.WriteString(c.Conn, text.String()); err != nil {
		return "", err
	}
	return c.reply()
}

// errNil is the answer where there is no value.
var errNil = errors.New("no such key")

func (c *conn) reply() (string, error) {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("an empty reply")
	}
	switch rest := line[1:]; line[0] {
	case '+', ':':
		return rest, nil
	case '-':
		return "", refusal(rest)
	case '$':
		n, err := strconv.Atoi(rest)
		switch {
		case err != nil:
			return "", err
		case n < 0:
			return "", errNil
		}
		value := make([]byte, n+2)
		_, err = io.ReadFull(c.in, value)
		return string(value[:n]), err
	default:
		return "", fmt.Errorf("a reply of an unknown kind: %q", line)
	}
}

// info returns the fields of one section of INFO.
func (c *conn) info(within time.Duration, section string) (map[string]string, error) {
	text, err := c.do(within, "INFO", section)
	if err != nil {
		return nil, err
	}
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields, nil
}

// token returns the token under which the server at the other end serves.
func (c *conn) token(within time.Duration) (fence.Token, error) {
	fields, err := c.info(within, "fencepost")
	if err != nil {
		return fence.Token{}, err
	}
	if phase := fields["fencepost_phase"]; phase != "leading" {
		return fence.Token{}, fmt.Errorf("the server does not serve: its phase is %q", phase)
	}
	return fence.Parse(fields["fencepost_token"])
}
