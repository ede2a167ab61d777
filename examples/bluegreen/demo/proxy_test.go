package demo

import (
	"bufio"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// echo answers every line with its own name and the line.
func echo(t *testing.T, name string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					_, _ = io.WriteString(c, name+" "+lines.Text()+"\n")
				}
			}()
		}
	}()
	return ln.Addr().String()
}

func startTestProxy(t *testing.T) *proxy {
	t.Helper()
	p, err := startProxy(t.Context())
	require.NoError(t, err)
	t.Cleanup(p.close)
	return p
}

func connectTo(t *testing.T, p *proxy) *bufio.ReadWriter {
	t.Helper()
	c, err := net.Dial("tcp", p.address())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
}

func say(t *testing.T, c *bufio.ReadWriter, line string) {
	t.Helper()
	_, err := c.WriteString(line + "\n")
	require.NoError(t, err)
	require.NoError(t, c.Flush())
}

func hears(t *testing.T, c *bufio.ReadWriter, want string) {
	t.Helper()
	line, err := c.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, want+"\n", line)
}

func TestTheStableAddressCutsConnectionsToAServerThatNoLongerLeads(t *testing.T) {
	p, blue, green := startTestProxy(t), echo(t, "blue"), echo(t, "green")
	p.forward(blue)
	old := connectTo(t, p)
	say(t, old, "one")
	hears(t, old, "blue one")
	p.forward(green)
	_, err := old.ReadString('\n')
	require.Error(t, err)
	next := connectTo(t, p)
	say(t, next, "two")
	hears(t, next, "green two")
}

func TestAConnectionWaitsWhileNobodyLeads(t *testing.T) {
	p, green := startTestProxy(t), echo(t, "green")
	c := connectTo(t, p)
	say(t, c, "early")
	p.forward(green)
	hears(t, c, "green early")
}
