package kvserver_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

func TestRedisCLIWorks(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, store string) {
		s := start(t, store, "-generation", "1").leads()
		require.Equal(t, "PONG", s.cli("PING"))
		require.Equal(t, "OK", s.cli("SET", "greeting", "hello world"))
		require.Equal(t, "hello world", s.cli("GET", "greeting"))
		require.Equal(t, "", s.cli("GET", "nothing"))
		require.Equal(t, "1", s.cli("INCR", "n"))
		require.Equal(t, "2", s.cli("INCR", "n"))
		require.Equal(t, "OK", s.cli("MSET", "a", "1", "b", "2"))
		require.Equal(t, "2", s.cli("DEL", "a", "b", "c"))
		require.Equal(t, "greeting\nn", s.cli("--scan"))
		require.Contains(t, s.cli("SET", "a", "1", "EX", "10"), "ERR SET's option EX is not supported")
		info := s.cli("INFO")
		for _, line := range []string{"fencepost_token:g1.e1", "fencepost_phase:leading", "fencepost_generation:1"} {
			require.Contains(t, info, line+"\r\n")
		}
		require.Zero(t, s.stop())
		again := start(t, store, "-generation", "1").leads()
		require.Equal(t, "hello world", again.cli("GET", "greeting"))
		require.Contains(t, again.cli("INFO"), "fencepost_token:g1.e2\r\n")
	})
}

func TestRedisBenchmarkWorks(t *testing.T) {
	t.Parallel()
	result := regexp.MustCompile(`(?m)^(SET|GET|INCR|MSET \(10 keys\)): ([0-9.]+) requests per second`)
	onEveryStore(t, func(t *testing.T, store string) {
		s := start(t, store, "-generation", "1").leads()
		out, err := s.tool("redis-benchmark", "-t", "set,get,incr,mset", "-P", "16", "-n", "20000", "-r", "10000", "-q")
		out = strings.ReplaceAll(out, "\r", "\n")
		require.NoError(t, err, out)
		require.NotRegexp(t, "(?i)error|warning|could not", out)
		rates := map[string]bool{}
		for _, m := range result.FindAllStringSubmatch(out, -1) {
			rate, err := strconv.ParseFloat(m[2], 64)
			require.NoError(t, err)
			rates[m[1]] = rate > 0
			t.Log(m[0])
		}
		require.Equal(t, map[string]bool{"SET": true, "GET": true, "INCR": true, "MSET (10 keys)": true}, rates, out)
	})
}

// goRedis returns a client with go-redis' default settings.
func (s *server) goRedis() *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: s.address})
	s.t.Cleanup(func() { require.NoError(s.t, client.Close()) })
	return client
}

func TestGoRedisWorksAtItsDefaults(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, store string) {
		ctx := t.Context()
		client := start(t, store, "-generation", "1").leads().goRedis()
		require.NoError(t, client.Ping(ctx).Err())
		require.NoError(t, client.Set(ctx, "k", "v\x00\r\n", 0).Err())
		require.Equal(t, "v\x00\r\n", client.Get(ctx, "k").Val())
		require.ErrorIs(t, client.Get(ctx, "nothing").Err(), redis.Nil)
		require.EqualValues(t, 1, client.Incr(ctx, "n").Val())
		require.ErrorContains(t, client.Incr(ctx, "k").Err(), "not an integer")
		require.ErrorContains(t, client.Set(ctx, "k", "v", 10e9).Err(), "not supported")
		require.NoError(t, client.MSet(ctx, "a", 1, "b", 2).Err())
		require.Equal(t, []any{"1", nil, "2"}, client.MGet(ctx, "a", "x", "b").Val())
		require.False(t, client.SetNX(ctx, "a", 2, 0).Val())
		require.EqualValues(t, 3, client.Exists(ctx, "a", "b", "k").Val())
		require.EqualValues(t, 2, client.Del(ctx, "a", "b", "c").Val())
		require.EqualValues(t, 2, client.DBSize(ctx).Val())
		require.Contains(t, client.Info(ctx, "fencepost").Val(), "fencepost_token:g1.e1")
	})
}

func TestGoRedisPipelinesAndTransactionsWork(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, store string) {
		ctx := t.Context()
		client := start(t, store, "-generation", "1").leads().goRedis()
		incrementAll := func(p redis.Pipeliner) error {
			for i := range 300 {
				p.Set(ctx, fmt.Sprintf("key%03d", i), i, 0)
				p.Incr(ctx, "n")
			}
			return nil
		}
		for round, run := range []func(context.Context, func(redis.Pipeliner) error) ([]redis.Cmder, error){client.Pipelined, client.TxPipelined} {
			replies, err := run(ctx, incrementAll)
			require.NoError(t, err)
			last, ok := replies[len(replies)-1].(*redis.IntCmd)
			require.True(t, ok)
			require.EqualValues(t, 300*(round+1), last.Val())
		}
		var keys []string
		for it := client.Scan(ctx, 0, "key*", 7).Iterator(); it.Next(ctx); {
			keys = append(keys, it.Val())
		}
		require.Len(t, keys, 300)
		require.IsIncreasing(t, keys)
	})
}

func TestASupersededServerEndsWithZeroAndItsDataAreTheNextOnes(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, store string) {
		blue := start(t, store, "-generation", "1").leads()
		require.Equal(t, "OK", blue.cli("SET", "a", "1"))
		green := start(t, store, "-generation", "2", "-auto-promote").leads()
		require.Zero(t, blue.exitCode())
		require.Contains(t, blue.log.String(), "superseded")
		require.Equal(t, "1", green.cli("GET", "a"))
		require.Contains(t, green.cli("INFO"), "fencepost_token:g2.e2\r\n")

		late := start(t, store, "-generation", "1")
		require.Zero(t, late.exitCode(), "an older generation never comes back")
	})
}

func TestAServerThatWaitsForPromotionSaysSo(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, store string) {
		blue := start(t, store, "-generation", "1", "-name", "blue").leads()
		green := start(t, store, "-generation", "2")
		require.Eventually(t, func() bool {
			return strings.Contains(green.cli("INFO"), "fencepost_phase:ready-to-promote\r\n")
		}, patience, 10e6)
		require.Regexp(t, `^READONLY fencepost: not leading \(phase ready-to-promote\): generation 1 leads since .*: blue$`, green.cli("SET", "a", "1"))
		require.Equal(t, "OK", blue.cli("SET", "a", "1"))
	})
}
