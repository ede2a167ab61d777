package kv_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/examples/kvserver/kv"
)

// scanAll iterates from 0 to 0 and returns how often each key came.
func (c *client) scanAll(options string) map[string]int {
	reply := regexp.MustCompile(`^\["(\d+)" \[(.*)\]\]$`)
	seen := map[string]int{}
	for cursor := "0"; ; {
		m := reply.FindStringSubmatch(c.words("SCAN " + cursor + " " + options))
		require.NotNil(c.t, m)
		for key := range strings.FieldsSeq(m[2]) {
			seen[strings.Trim(key, `"`)]++
		}
		if cursor = m[1]; cursor == "0" {
			return seen
		}
		n, err := strconv.ParseUint(cursor, 10, 53)
		require.NoError(c.t, err)
		require.NotZero(c.t, n)
	}
}

func TestAFullScanReturnsEveryKeyThatWasThereThroughout(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	for i := 0; i < 400; i += 50 {
		var pairs []string
		for k := i; k < i+50; k++ {
			pairs = append(pairs, fmt.Sprintf("key%03d %d", k, k))
		}
		require.Equal(t, "+OK", c.words("MSET "+strings.Join(pairs, " ")))
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	churn, begun := c.another(), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			key := fmt.Sprintf("key%03d-%d", i%400, i)
			churn.pipeline("SET "+key+" x", fmt.Sprintf("DEL key%03d-%d", (i-20+400)%400, i-20))
			if i == 20 {
				close(begun)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	<-begun
	for range 5 {
		seen := c.scanAll("COUNT 7")
		for i := range 400 {
			require.Equal(t, 1, seen[fmt.Sprintf("key%03d", i)], i)
		}
	}
	close(stop)
	<-stopped
}

func TestScanGoesOnAtACursorWhoseKeyIsGone(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	c.words("MSET a 1 b 2 c 3 d 4")
	reply := c.words("SCAN 0 COUNT 2")
	cursor := strings.Split(reply, `"`)[1]
	require.Equal(t, ":1", c.words("DEL c"))
	require.Equal(t, `["0" ["d"]]`, c.words("SCAN "+cursor))
	require.Equal(t, `["0" ["d"]]`, c.words("SCAN "+cursor), "a cursor can be used again")
}

func TestScanOptions(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	c.words("MSET apple 1 apricot 2 banana 3 b*n 4")
	for _, step := range []struct{ command, want string }{
		{"SCAN 0 MATCH ap*", `["0" ["apple" "apricot"]]`},
		{"SCAN 0 match b\\*n count 100", `["0" ["b*n"]]`},
		{"SCAN 0 TYPE string MATCH banana", `["0" ["banana"]]`},
		{"SCAN 0 TYPE list", `["0" []]`},
		{"SCAN 0 COUNT 0", "-ERR syntax error"},
		{"SCAN 0 COUNT x", "-ERR value is not an integer or out of range"},
		{"SCAN 0 COUNT", "-ERR syntax error"},
		{"SCAN 0 BOGUS 1", "-ERR syntax error"},
		{"SCAN x", "-ERR invalid cursor"},
		{"SCAN -1", "-ERR invalid cursor"},
		{"SCAN 99999999999999999999", "-ERR invalid cursor"},
		{"SCAN 18446744073709551615", "-ERR invalid cursor: 18446744073709551615 is none of the newest 8192 of this server: begin again with SCAN 0"},
	} {
		require.Equal(t, step.want, c.words(step.command), step.command)
	}
	require.Len(t, c.scanAll("COUNT 1 MATCH *a*"), 3)
}
