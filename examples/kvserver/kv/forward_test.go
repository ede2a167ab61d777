package kv_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/examples/kvserver/kv"
	"github.com/fencepost/fencepost/fence"
)

func TestWhatIsHeldBackGoesOnInOrderWhereTheServerLeadsAgain(t *testing.T) {
	server, address := standby(t, kv.Config{})
	c := open(t, memory.New(), catalog.Config{})
	server.Lead(c)
	client := dial(t, address)
	require.Equal(t, "+OK", client.words("SET a 1"))
	server.Hold()
	client.sendLines("INCR a", "INCR a", "GET a")
	require.Equal(t, "+PONG", client.another().words("PING"), "what needs no data is answered")
	server.Lead(c)
	require.Equal(t, []string{":2", ":3", `"3"`}, []string{client.reply(), client.reply(), client.reply()})
}

func TestOnlyAServerThatHoldsCommandsBackOrForwardsThemIsRedirected(t *testing.T) {
	server, address := standby(t, kv.Config{})
	other, elsewhere := standby(t, kv.Config{})
	other.Lead(open(t, memory.New(), catalog.Config{}))
	client := dial(t, address)
	server.Redirect(elsewhere)
	require.Contains(t, client.words("SET a 1"), "-READONLY", "it follows")
	server.Lead(open(t, memory.New(), catalog.Config{}))
	server.Redirect(elsewhere)
	require.Equal(t, "+OK", client.words("SET a 2"))
	require.Equal(t, "nil", dial(t, elsewhere).words("GET a"), "it leads, as an old word must not change")
	server.Hold()
	server.Redirect(elsewhere)
	require.Equal(t, "+OK", client.words("SET a 3"))
	require.Equal(t, `"3"`, dial(t, elsewhere).words("GET a"))
}

func TestWhatIsHeldBackForTooLongIsRefusedAndChangedNothing(t *testing.T) {
	server, address := standby(t, kv.Config{HoldTimeout: brief})
	c := open(t, memory.New(), catalog.Config{})
	server.Lead(c)
	client := dial(t, address)
	server.Hold()
	require.Equal(t, "-READONLY fencepost: not leading (the next leader has not come yet)", client.words("SET a 1"))
	server.Lead(c)
	require.Equal(t, "nil", client.words("GET a"))
}

// pair is a server that leads, and one that commands come to.
func pair(t *testing.T, cfg kv.Config) (from, to *kv.Server, client *client, leader string) {
	from, front := standby(t, cfg)
	to, leader = standby(t, kv.Config{})
	to.Lead(open(t, memory.New(), catalog.Config{}))
	from.Forward(leader)
	return from, to, dial(t, front), leader
}

func TestCommandsAreForwardedInOrderWithThoseThatAreAnsweredHere(t *testing.T) {
	_, _, c, leader := pair(t, kv.Config{})
	large := strings.Repeat("x", 300_000)
	require.Equal(t, []string{"+OK", "+PONG", ":1", `"1"`, "+OK", fmt.Sprintf("%q", large), "nil", "-ERR value is not an integer or out of range"},
		c.pipeline("SET a 0", "PING", "INCR a", "GET a", "SET b "+large, "GET b", "GET none", "INCR b"))
	require.Equal(t, `"1"`, dial(t, leader).words("GET a"))
	require.Equal(t, "[\"1\" nil]", c.words("MGET a none"))
	require.Equal(t, []string{"+OK", "+QUEUED", "+QUEUED", "+QUEUED", "[:2 +PONG :3]", ":4"},
		c.pipeline("MULTI", "INCR a", "PING", "INCR a", "EXEC", "INCR a"))
	require.Equal(t, []string{"+OK", "+QUEUED", "+OK", `"4"`}, c.pipeline("MULTI", "INCR a", "DISCARD", "GET a"))
}

func TestWhatCameBeforeTheNextLeaderLeadsWaitsForIt(t *testing.T) {
	from, front := standby(t, kv.Config{})
	to, leader := standby(t, kv.Config{})
	from.Hold()
	c := dial(t, front)
	c.sendLines("INCR a", "INCR a")
	from.Forward(leader) // which answers READONLY
	other := c.another()
	other.sendLines("INCR b")
	require.Eventually(t, func() bool { return to.Connected() == 2 }, patience, time.Millisecond)
	to.Lead(open(t, memory.New(), catalog.Config{}))
	require.Equal(t, []string{":1", ":2", ":1"}, []string{c.reply(), c.reply(), other.reply()})
}

func TestALeaderThatCantBeReachedIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	server, front := standby(t, kv.Config{HoldTimeout: brief})
	server.Forward(ln.Addr().String())
	require.Regexp(t, "^-READONLY fencepost: not leading: "+ln.Addr().String()+" leads, and can't be reached: .*refused", dial(t, front).words("SET a 1"))
}

func TestWhatCouldNotBeForwardedIsRunHereOnceThisServerLeads(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server, address := standby(t, kv.Config{})
	server.Forward(dead.Addr().String())
	client := dial(t, address)
	client.sendLines("INCR a", "INCR a", "GET a")
	conn, err := dead.Accept() // the commands are under way
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	require.NoError(t, dead.Close())
	server.Lead(open(t, memory.New(), catalog.Config{}))
	require.Equal(t, []string{":1", ":2", `"2"`}, []string{client.reply(), client.reply(), client.reply()})
}

// A deaf server takes commands and never answers them.
func deaf(t *testing.T) (address string, taken func() string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var mu sync.Mutex
	var text strings.Builder
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				in := bufio.NewScanner(conn)
				for in.Scan() {
					mu.Lock()
					text.WriteString(in.Text() + " ")
					greeted := in.Text() == "fencepost.hops"
					mu.Unlock()
					if greeted {
						_, _ = conn.Write([]byte("+OK\r\n"))
					}
					if strings.HasPrefix(in.Text(), "die") {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String(), func() string {
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}
}

func TestWhatMayHaveComeToTheOtherServerIsUnknownAndNeverSentAgain(t *testing.T) {
	address, taken := deaf(t)
	server, front := standby(t, kv.Config{ForwardTimeout: 200 * time.Millisecond})
	server.Forward(address)
	c := dial(t, front)
	for n, line := range []string{"SET late 1", "SET die 1"} {
		require.Regexp(t, "^-UNKNOWN outcome: the command was forwarded to "+address, c.words(line))
		require.Equal(t, n+1, strings.Count(taken(), "SET"))
	}
	reply := c.words("GET die")
	require.Regexp(t, "^-ERR nothing was read: the command was forwarded to "+address, reply, "a read has no outcome")
	require.Equal(t, "+PONG", c.words("PING"), "the client's connection stays")
}

func TestTwoServersThatTakeEachOtherForTheLeaderDoNotPassCommandsOnForEver(t *testing.T) {
	one, first := standby(t, kv.Config{HoldTimeout: 100 * time.Millisecond})
	two, second := standby(t, kv.Config{HoldTimeout: 100 * time.Millisecond})
	one.Forward(second)
	two.Forward(first)
	require.Regexp(t, "^-READONLY ", dial(t, first).words("SET a 1"))
}

func TestACommandThatMetTheFenceIsForwardedForItChangedNothing(t *testing.T) {
	store := newFile(t)
	server, front := standby(t, kv.Config{})
	server.Lead(open(t, store, catalog.Config{}))
	to, leader := standby(t, kv.Config{})
	c := dial(t, front)
	require.Equal(t, "+OK", c.words("SET a 1"))
	next := open(t, store, catalog.Config{Generation: 2, Holder: fence.Holder{Name: "green"}})
	to.Lead(next)
	c.sendLines("INCR a", "GET a")
	server.Hold()
	server.Forward(leader)
	require.Equal(t, []string{":2", `"2"`}, []string{c.reply(), c.reply()})
}

func TestAHandoverUnderLoadFailsNoCommandAndCountsEachOnce(t *testing.T) {
	store := newFile(t)
	blue, front := standby(t, kv.Config{})
	green, leader := standby(t, kv.Config{})
	first := open(t, store, catalog.Config{})
	blue.Lead(first)
	const clients = 64
	var acked atomic.Int64
	stop := make(chan struct{})
	var failures sync.Map
	var wg sync.WaitGroup
	for range clients {
		c := dial(t, front)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if reply := c.words("INCR n"); reply[0] != ':' {
					failures.Store(reply, true)
					return
				}
				acked.Add(1)
			}
		})
	}
	more := func() {
		now := acked.Load()
		require.Eventually(t, func() bool { return acked.Load() > now+500 }, patience, time.Millisecond)
	}
	more()
	blue.Hold()
	blue.Lead(first) // the first successor fails
	more()
	blue.Hold()
	green.Lead(open(t, store, catalog.Config{Generation: 2}))
	blue.Forward(leader)
	more()
	close(stop)
	wg.Wait()
	failures.Range(func(reply, _ any) bool { t.Error(reply); return true })
	require.Equal(t, fmt.Sprintf(`"%d"`, acked.Load()), dial(t, leader).words("GET n"))
}

// A fickle server refuses the first commands for want of a leader, and then
// leads, in the middle of a pipeline too.
func TestWhatIsSentAgainIsNotDoneBehindWhatCameLater(t *testing.T) {
	for range 20 {
		from, front := standby(t, kv.Config{})
		to, leader := standby(t, kv.Config{MaxBatch: 1})
		from.Forward(leader)
		c := dial(t, front)
		lines := make([]string, 50)
		for i := range lines {
			lines[i] = fmt.Sprintf("SET a %d", i)
		}
		c.sendLines(lines...)
		require.Eventually(t, func() bool { return to.Connected() == 1 }, patience, 100*time.Microsecond)
		to.Lead(open(t, memory.New(), catalog.Config{}))
		for range lines {
			require.Equal(t, "+OK", c.reply())
		}
		require.Equal(t, `"49"`, c.words("GET a"))
	}
}

func TestACommandThatTheDrainCutBeforeItBeganIsHeldBack(t *testing.T) {
	store := watch(newFile(t))
	server, address := standby(t, kv.Config{DrainTimeout: 20 * time.Millisecond})
	c := open(t, store, catalog.Config{})
	server.Lead(c)
	first := dial(t, address)
	release := store.holdUp()
	first.sendLines("SET a 1")
	<-store.held
	second := first.another()
	second.sendLines("SET b 2") // queued behind it
	third, asked := first.another(), 0
	require.Eventually(t, func() bool {
		asked++
		return strings.Contains(third.words("INFO stats"), fmt.Sprintf("total_commands_processed:%d\\r", 2+asked))
	}, patience, 10*time.Millisecond)
	server.Hold()
	require.Regexp(t, "^-UNKNOWN ", first.reply())
	release()
	server.Lead(c)
	require.Equal(t, "+OK", second.reply())
}
