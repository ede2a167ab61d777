package kv_test

import (
	"context"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/examples/kvserver/kv"
)

func TestServeEndsItsConnectionsAndReturns(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- kv.New(kv.Config{}).Serve(ctx, ln) }()
	c := dial(t, ln.Addr().String())
	require.Equal(t, "+PONG", c.words("PING"))
	cancel()
	require.NoError(t, <-served)
	_, err = c.read()
	require.Error(t, err)
	_, err = net.Dial("tcp", ln.Addr().String())
	require.Error(t, err)
}

func TestServeLetsWritesUnderWayFinish(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	server := kv.New(kv.Config{DrainTimeout: patience})
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	store := watch(newFile(t))
	server.Lead(open(t, store, catalog.Config{}))
	c := dial(t, ln.Addr().String())
	release := store.holdUp()
	c.sendLines("SET a 1")
	<-store.held
	cancel()
	release()
	require.Equal(t, "+OK", c.reply())
	require.NoError(t, <-served)
}

func TestServeAnswersWhatHasArrivedBeforeItCloses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	server := kv.New(kv.Config{DrainTimeout: patience})
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, ln) }()
	store := watch(newFile(t))
	server.Lead(open(t, store, catalog.Config{}))
	c := dial(t, ln.Addr().String())
	release := store.holdUp()
	c.sendLines("SET a 1")
	<-store.held
	c.sendLines("GET a", "PING")
	cancel()
	release()
	require.Equal(t, []string{"+OK", `"1"`, "+PONG"}, []string{c.reply(), c.reply(), c.reply()})
	require.NoError(t, <-served)
}

func TestServeReturnsWhyItsListenerEnded(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- kv.New(kv.Config{}).Serve(t.Context(), ln) }()
	c := dial(t, ln.Addr().String())
	require.Equal(t, "+PONG", c.words("PING"))
	require.NoError(t, ln.Close())
	require.ErrorIs(t, <-served, net.ErrClosed)
}

func TestAClientThatBreaksTheProtocolIsToldAndLeft(t *testing.T) {
	_, address := standby(t, kv.Config{MaxRequest: 10_000, DrainTimeout: time.Second})
	for name, text := range map[string]string{
		"no length":       "*x\r\n",
		"no bulk":         "*1\r\n+x\r\n",
		"negative length": "*1\r\n$-5\r\n",
		"absurd length":   "*1\r\n$9223372036854775806\r\nPING\r\n",
		"too large":       "*2\r\n$4\r\nECHO\r\n$20000\r\n" + string(make([]byte, 10_000-22)),
	} {
		c := dial(t, address)
		c.raw(text)
		require.Regexp(t, "^-ERR Protocol error", c.reply(), name)
		_, err := c.read()
		require.Error(t, err, name)
	}
	require.Equal(t, "+PONG", dial(t, address).words("PING"))
}

func TestAnHTTPRequestIsLeftUnansweredAndNoneOfItsLinesIsExecuted(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	for name, request := range map[string]string{
		"POST":               "POST / HTTP/1.1\r\nSET a 1\r\n",
		"the body of a GET":  "GET / HTTP/1.1\r\nHost: localhost:6380\r\n\r\nSET a 1\r\n",
		"a method in small":  "put /x HTTP/1.1\r\n\r\nSET a 1\r\n",
		"OPTIONS":            "OPTIONS * HTTP/1.1\r\nSET a 1\r\n",
		"headers only":       "Host: localhost:6380\r\nSET a 1\r\n",
		"in a transaction":   "MULTI\r\nSET a 1\r\nPOST / HTTP/1.1\r\nEXEC\r\n",
		"a header by itself": "x-y: SET\r\nSET a 1\r\n",
	} {
		browser := c.another()
		_, err := browser.conn.Write([]byte(request))
		require.NoError(t, err)
		answer, err := io.ReadAll(browser.conn)
		if err != nil { // closed before all of it was read
			require.ErrorIs(t, err, syscall.ECONNRESET, name)
		}
		require.NotContains(t, string(answer), "ERR", name)
		require.Equal(t, "nil", c.do("GET", "a"), name)
	}
	require.Equal(t, "+OK", c.do("SET", "HTTP/1.1", "Host:"), "an argument may be what it likes")
	require.Equal(t, `"Host:"`, c.do("GET", "HTTP/1.1"))
}
