package cli_test

import (
	"io"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/internal/testpg"
)

// cutter stands before a server and cuts as many of the connections to come as
// it is told, before the server has said anything, or later.
type cutter struct {
	ln    net.Listener
	to    string
	cuts  atomic.Int64
	after atomic.Int64 // bytes of the server's answers
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cutter{ln: ln, to: to}
	t.Cleanup(func() { _ = ln.Close() }) // no test ends by that
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go c.pass(in)
		}
	}()
	return c
}

func (c *cutter) pass(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() { _, _ = io.Copy(out, in); _ = out.Close() }() // until either side ends
	if c.cuts.Add(-1) >= 0 {
		_, _ = io.CopyN(in, out, c.after.Load())
		return
	}
	_, _ = io.Copy(in, out)
}

func TestReadingCommandsPassOverAConnectionThatIsCut(t *testing.T) {
	dsn := testpg.URL(t)
	require.NoError(t, hold(t.Context(), dsn, 1, "blue", "first", func(c *catalog.Catalog) error { return update(c, 50) }))
	server, err := url.Parse(dsn)
	require.NoError(t, err)
	cut := newCutter(t, server.Host)
	front := testpg.With(t, dsn, func(u *url.URL) { u.Host = cut.ln.Addr().String() })
	env := map[string]string{storeurl.EnvVar: front, "USER": "alice"}
	for _, args := range [][]string{{"status"}, {"history"}, {"dump"}, {"dump", "--log"}, {"preflight", "--generation", "2"}, {"store", "check"}} {
		sound := run(t, map[string]string{storeurl.EnvVar: dsn, "USER": "alice"}, args...)
		require.Equal(t, exitcodes.Success, sound.code, sound.stderr)
		for _, after := range []int64{0, 400, 3000} { // in the login, and behind it
			cut.after.Store(after)
			cut.cuts.Store(2)
			got := run(t, env, append(args, "--timeout", "30s")...)
			require.Equal(t, exitcodes.Success, got.code, "%v, cut behind %d bytes: %s%s", args, after, got.stdout, got.stderr)
			require.Empty(t, got.stderr)
			if args[0] == "dump" {
				behind := func(text string) string { _, lines, _ := strings.Cut(text, "\n"); return lines }
				require.Equal(t, behind(sound.stdout), behind(got.stdout), "a line came twice, or not at all")
			}
		}
	}
}

func TestAReadingCommandThatFailsSaysNothingOfWrites(t *testing.T) {
	for _, args := range [][]string{{"status"}, {"history"}, {"dump"}, {"dump", "--log"}, {"preflight", "--generation", "2"}} {
		for _, store := range []string{"etcd://127.0.0.1:1/p", "postgres://u@127.0.0.1:1/d?catalog=c"} {
			got := run(t, nil, append(args, "--store", store, "--timeout", "300ms")...)
			require.Equal(t, exitcodes.TempFail, got.code, "%v", args)
			require.NotContains(t, got.stdout+got.stderr, "written", "%v", args)
			require.Contains(t, got.stderr, "connection refused", "the last try was cut short, and the one before says why")
		}
	}
}
