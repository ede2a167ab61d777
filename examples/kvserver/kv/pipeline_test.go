package kv_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/examples/kvserver/kv"
)

func TestAPipelineSharesOneCommitAndReadsSeeTheWritesBeforeThem(t *testing.T) {
	store := watch(newFile(t))
	c := leading(t, store, kv.Config{})
	require.Equal(t, []string{"nil", "+OK", `"1"`, ":2", "+PONG", ":1", "nil", `["0" []]`},
		c.pipeline("GET a", "SET a 1", "GET a", "INCR a", "PING", "DEL a", "GET a", "SCAN 0"))
	require.EqualValues(t, 1, store.appends.Load())
}

func TestACommandOfAPipelineThatFailsChangesNothingAndTheOthersGoOn(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	require.Equal(t, []string{
		"+OK", "-ERR value is not an integer or out of range", "-ERR syntax error",
		"-ERR unknown command 'NOPE', with args beginning with: ", "-ERR a key of 4097 bytes: keys have 1 to 4096 bytes", "+OK", `"x"`,
	}, c.pipeline("SET a x", "INCR a", "SET a y bogus", "NOPE", "MSET a z "+strings.Repeat("k", 4097)+" z", "SET b 1", "GET a"))
	require.Equal(t, `"1"`, c.words("GET b"))
}

func TestNoReplyIsSentBeforeTheCommitHasLanded(t *testing.T) {
	store := watch(newFile(t))
	c := leading(t, store, kv.Config{})
	release := store.holdUp()
	c.sendLines("PING", "SET a 1")
	<-store.held
	require.NoError(t, c.conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err := c.read()
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
	require.Equal(t, "nil", c.another().words("GET a"), "nobody sees what has not landed")
	release()
	require.NoError(t, c.conn.SetReadDeadline(time.Now().Add(patience)))
	require.Equal(t, "+PONG", c.reply())
	require.Equal(t, "+OK", c.reply())
}

func TestAnUpdateHasABoundedNumberOfCommands(t *testing.T) {
	store := watch(newFile(t))
	c := leading(t, store, kv.Config{MaxBatch: 10})
	lines := make([]string, 25)
	for i := range lines {
		lines[i] = "INCR a"
	}
	replies := c.pipeline(lines...)
	require.Equal(t, ":25", replies[24])
	require.EqualValues(t, 3, store.appends.Load())
}

func TestAnUpdateThatTheStoreFindsTooLargeIsDivided(t *testing.T) {
	c := leading(t, memory.NewWith(memory.Config{Payload: 4096}), kv.Config{})
	big, tooBig := strings.Repeat("v", 900), strings.Repeat("v", 5000)
	lines := []string{"SET big " + tooBig}
	for i := range 10 {
		lines = append(lines, fmt.Sprintf("SET k%d %s", i, big), "INCR n")
	}
	// More than arrives together is more than one Update in any case.
	replies := c.pipeline(lines...)
	require.Regexp(t, "^-ERR too large, nothing was written: .*4096", replies[0])
	for i := range 10 {
		require.Equal(t, "+OK", replies[1+2*i])
		require.Equal(t, fmt.Sprintf(":%d", i+1), replies[2+2*i])
	}
	require.Equal(t, ":11", c.words("DBSIZE"))
	require.Equal(t, "nil", c.words("GET big"))
}

func TestAnUpdateHasABoundedNumberOfBytes(t *testing.T) {
	store := watch(newFile(t))
	c := leading(t, store, kv.Config{MaxBatchBytes: 1000})
	value := strings.Repeat("v", 400)
	require.Equal(t, []string{"+OK", "+OK", "+OK", "+OK"}, c.pipeline("SET a "+value, "SET b "+value, "SET c "+value, "SET d "+value))
	require.EqualValues(t, 2, store.appends.Load())
}

func TestIncrementsOfManyClientsAreAllCounted(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	var wg sync.WaitGroup
	for range 8 {
		other := c.another()
		wg.Go(func() {
			for range 20 {
				other.pipeline("INCR n", "INCR n", "INCR n")
			}
		})
	}
	wg.Wait()
	require.Equal(t, `"480"`, c.words("GET n"))
}

func TestATransactionIsOneUpdate(t *testing.T) {
	store := watch(newFile(t))
	c := leading(t, store, kv.Config{MaxBatch: 2})
	require.Equal(t, []string{
		"+OK", "+QUEUED", "+QUEUED", "+QUEUED", "+QUEUED", "+QUEUED", "+QUEUED",
		`[+OK :2 "2" +PONG +OK -ERR value is not an integer or out of range]`,
	}, c.pipeline("MULTI", "SET a 1", "INCR a", "GET a", "PING", "SET b x", "INCR b", "EXEC"))
	require.EqualValues(t, 1, store.appends.Load())
	require.Equal(t, "[]", c.pipeline("MULTI", "EXEC")[1])
	require.Equal(t, []string{"+OK", "+QUEUED", "+OK", `"2"`}, c.pipeline("MULTI", "SET a 9", "DISCARD", "GET a"))
}

func TestATransactionWithACommandThatCouldNotBeQueuedIsRefused(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	require.Equal(t, []string{
		"+OK", "+QUEUED", "-ERR wrong number of arguments for 'get' command", "+QUEUED",
		"-EXECABORT Transaction discarded because of previous errors.", "nil",
	}, c.pipeline("MULTI", "SET a 1", "GET", "SET b 1", "EXEC", "GET a"))
	require.Equal(t, []string{
		"-ERR EXEC without MULTI", "-ERR DISCARD without MULTI", "+OK", "-ERR MULTI calls can not be nested", "[]",
		"-ERR wrong number of arguments for 'multi' command",
	}, c.pipeline("EXEC", "DISCARD", "MULTI", "MULTI", "EXEC", "MULTI 1"))
}

func TestATransactionThatTheStoreFindsTooLargeIsNotDivided(t *testing.T) {
	c := leading(t, memory.NewWith(memory.Config{Payload: 4096}), kv.Config{})
	value := strings.Repeat("v", 1500)
	replies := c.pipeline("SET before 1", "MULTI", "SET a "+value, "SET b "+value, "SET c "+value, "EXEC", "SET behind 1")
	require.Regexp(t, "^-ERR too large", replies[5])
	require.Equal(t, "+OK", replies[6])
	require.Equal(t, `["0" ["before" "behind"]]`, c.words("SCAN 0"))
}

func TestATransactionIsBounded(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{MaxRequest: 3000})
	value := strings.Repeat("v", 1200)
	require.Equal(t, "+OK", c.words("MULTI"))
	require.Equal(t, "+QUEUED", c.words("SET a "+value))
	require.Equal(t, "+QUEUED", c.words("SET b "+value))
	require.Equal(t, "-ERR the transaction is too large: at most 10000 commands and 3000 bytes", c.words("SET c "+value))
	require.Equal(t, "-EXECABORT Transaction discarded because of previous errors.", c.words("EXEC"))
}

func TestATransactionIsBoundedWhateverItsCommands(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{MaxRequest: 3000})
	text := strings.Repeat("v", 2000)
	require.Equal(t, "+OK", c.words("MULTI"))
	require.Equal(t, "+QUEUED", c.words("ECHO "+text))
	require.Regexp(t, "^-ERR the transaction is too large", c.words("ECHO "+text))
	require.Regexp(t, "^-EXECABORT", c.words("EXEC"))
}

func TestRepliesOfAnySizeArrive(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{MaxBatch: 2})
	value := strings.Repeat("v", 1<<20)
	require.Equal(t, "+OK", c.do("SET", "a", value))
	lines := []string{"GET a", "GET a", "GET a", "GET a", "GET a", "PING"}
	c.sendLines(lines...)
	for range 5 {
		require.Len(t, c.reply(), len(value)+2)
	}
	require.Equal(t, "+PONG", c.reply())
}
