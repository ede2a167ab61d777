package kv_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/examples/kvserver/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen soon.
const patience = time.Minute

// newFile returns a store over a new SQLite file.
func newFile(t *testing.T) driver.Store {
	return openFile(t, filepath.Join(t.TempDir(), "kv.db"))
}

func openFile(t *testing.T, path string) driver.Store {
	store, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

// open claims the catalog in store; the test's end closes it.
func open(t *testing.T, store driver.Store, cfg catalog.Config) *catalog.Catalog {
	if cfg.Generation == 0 {
		cfg.Generation = 1
	}
	c, err := catalog.Open(t.Context(), store, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() }) // some were fenced
	return c
}

// standby serves without leading and returns the server and its address.
func standby(t *testing.T, cfg kv.Config) (*kv.Server, string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := kv.New(cfg)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
	})
	return server, ln.Addr().String()
}

// leading serves the catalog in store and returns a client.
func leading(t *testing.T, store driver.Store, cfg kv.Config) *client {
	server, address := standby(t, cfg)
	server.Lead(open(t, store, catalog.Config{}))
	return dial(t, address)
}

// client speaks just enough of the protocol. It shows a reply as text: +OK,
// -ERR …, :1, "value", nil, [1 2].
type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, address string) *client {
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return &client{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// another is one more client of the same server.
func (c *client) another() *client { return dial(c.t, c.conn.RemoteAddr().String()) }

// do sends one command and returns its reply.
func (c *client) do(args ...string) string {
	c.send(args)
	return c.reply()
}

// words is do with the words of a line.
func (c *client) words(line string) string { return c.do(strings.Fields(line)...) }

// pipeline sends lines together and returns their replies.
func (c *client) pipeline(lines ...string) (replies []string) {
	c.sendLines(lines...)
	for range lines {
		replies = append(replies, c.reply())
	}
	return replies
}

func (c *client) sendLines(lines ...string) {
	commands := make([][]string, len(lines))
	for i, line := range lines {
		commands[i] = strings.Fields(line)
	}
	c.send(commands...)
}

// send sends commands in one write.
func (c *client) send(commands ...[]string) {
	var b bytes.Buffer
	for _, args := range commands {
		fmt.Fprintf(&b, "*%d\r\n", len(args))
		for _, arg := range args {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
		}
	}
	c.raw(b.String())
}

func (c *client) raw(text string) {
	_, err := io.WriteString(c.conn, text)
	require.NoError(c.t, err)
}

func (c *client) reply() string {
	text, err := c.read()
	require.NoError(c.t, err)
	return text
}

func (c *client) read() (string, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	switch line[0] {
	case '$':
		return c.bulk(line[1:])
	case '*':
		return c.array(line[1:])
	}
	return line, nil
}

func (c *client) bulk(length string) (string, error) {
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 {
		return "nil", err
	}
	value := make([]byte, n+2)
	_, err = io.ReadFull(c.r, value)
	return strconv.Quote(string(value[:n])), err
}

func (c *client) array(length string) (string, error) {
	n, err := strconv.Atoi(length)
	items := make([]string, max(n, 0))
	for i := range items {
		if items[i], err = c.read(); err != nil {
			return "", err
		}
	}
	return "[" + strings.Join(items, " ") + "]", err
}

// watched is a store that counts commits and can hold them up.
type watched struct {
	driver.Store
	appends atomic.Int64
	hold    atomic.Pointer[chan struct{}] // while set, commits wait until it is closed
	held    chan struct{}                 // receives for each one that waits
}

func watch(store driver.Store) *watched {
	return &watched{Store: store, held: make(chan struct{}, 100)}
}

func (w *watched) Append(ctx context.Context, head driver.Head, rec driver.Record) error {
	if hold := w.hold.Load(); hold != nil {
		w.held <- struct{}{}
		select {
		case <-*hold:
		case <-ctx.Done():
		}
	}
	w.appends.Add(1)
	return w.Store.Append(ctx, head, rec)
}

// holdUp makes commits wait until the function that it returns is called.
func (w *watched) holdUp() (release func()) {
	gate := make(chan struct{})
	w.hold.Store(&gate)
	return func() {
		w.hold.Store(nil)
		close(gate)
	}
}
