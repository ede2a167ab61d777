package recipes_test

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/fence"
)

// Redis. The register is a key, with the binary form of the token as hexadecimal
// digits, which sort as tokens do; a number of Lua would round it. A script is atomic.
// In a cluster, the register and the keys that it guards need one hash tag.
//
// A replica that is promoted may have lost the newest raise: with WAIT, or
// min-replicas-to-write, that is less likely, and never excluded.

// raise is what a new holder runs behind its claim, and before its work.
var raise = redis.NewScript(`
	local seen = redis.call('GET', KEYS[1])
	if seen and ARGV[1] < seen then return redis.error_reply('FENCED ' .. seen) end
	redis.call('SET', KEYS[1], ARGV[1])
	return 'OK'`)

// set is a guarded write.
var set = redis.NewScript(`
	local seen = redis.call('GET', KEYS[1])
	if seen ~= ARGV[1] then return redis.error_reply('FENCED ' .. (seen or 'none')) end
	return redis.call('SET', KEYS[2], ARGV[2])`)

const (
	register = "{orders}:token"
	row      = "{orders}:1"
)

// digits are the form of a token that sorts as tokens do.
func digits(t fence.Token) string {
	b, err := t.MarshalBinary()
	if err != nil {
		return ""
	}
	return hex.EncodeToString(b)
}

// refusal returns what err says of the token, as a hint.
func refusal(held fence.Token, err error) error {
	text, found := "", false
	if err != nil {
		text, found = strings.CutPrefix(err.Error(), "FENCED ")
	}
	if !found {
		return err
	}
	var current fence.Token
	if b, bad := hex.DecodeString(strings.Fields(text)[0]); bad != nil || current.UnmarshalBinary(b) != nil || held.Compare(current) >= 0 {
		return &fence.TokenError{Guard: "redis orders", Token: held.String(), Err: fence.ErrNeverIssued}
	}
	return &fence.Error{Held: held, Current: current, Guard: "redis orders"}
}

func guardedRaise(ctx context.Context, c *redis.Client, t fence.Token) error {
	return refusal(t, raise.Run(ctx, c, []string{register}, digits(t)).Err())
}

func guardedSet(ctx context.Context, c *redis.Client, t fence.Token, value string) error {
	return refusal(t, set.Run(ctx, c, []string{register, row}, digits(t), value).Err())
}

// startRedis starts a real server, which is stopped with the test.
func startRedis(t *testing.T) *redis.Client {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	require.NoError(t, err, "install redis-server")
	socket := filepath.Join(t.TempDir(), "s")
	cmd := exec.Command(path, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", filepath.Dir(socket))
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	c := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	t.Cleanup(func() {
		_ = c.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	require.Eventually(t, func() bool { return c.Ping(t.Context()).Err() == nil }, 30*time.Second, 10*time.Millisecond)
	return c
}

var (
	blue  = fence.Token{Generation: 7, Epoch: 41}
	green = fence.Token{Generation: 8, Epoch: 42}
)

func TestAScriptOfRedisRefusesAStaleWrite(t *testing.T) {
	t.Parallel()
	c, ctx := startRedis(t), t.Context()
	require.ErrorIs(t, guardedSet(ctx, c, blue, "x"), fence.ErrNeverIssued, "no holder has raised the register yet")
	require.NoError(t, guardedRaise(ctx, c, blue))
	require.NoError(t, guardedSet(ctx, c, blue, "older"))
	require.ErrorIs(t, guardedSet(ctx, c, green, "x"), fence.ErrNeverIssued, "a forged token raises nothing")
	require.NoError(t, guardedRaise(ctx, c, green))
	require.NoError(t, guardedSet(ctx, c, green, "newer"))
	for _, err := range []error{guardedSet(ctx, c, blue, "stale"), guardedRaise(ctx, c, blue)} {
		var stale *fence.Error
		require.ErrorAs(t, err, &stale)
		require.Equal(t, &fence.Error{Held: blue, Current: green, Guard: "redis orders"}, stale)
		require.NotErrorIs(t, err, fence.ErrSuperseded)
	}
	require.Equal(t, "newer", c.Get(ctx, row).Val())
}

// Every merge of {look, write} of the old holder with {raise, write} of the new one:
// a look before the write accepts a stale one, the script none.
func TestInNoOrderOfStepsDoesRedisAcceptAStaleWrite(t *testing.T) {
	t.Parallel()
	c, ctx := startRedis(t), t.Context()
	stale := func(look, write func() error) (found int) {
		for _, order := range []string{"LWrw", "LrWw", "LrwW", "rLWw", "rLwW", "rwLW"} {
			require.NoError(t, c.FlushAll(ctx).Err())
			require.NoError(t, guardedRaise(ctx, c, blue))
			var err error
			for _, step := range order {
				switch step {
				case 'L':
					err = look()
				case 'W':
					if err == nil {
						_ = write()
					}
				case 'r':
					require.NoError(t, guardedRaise(ctx, c, green))
				case 'w':
					require.NoError(t, guardedSet(ctx, c, green, "newer"))
				}
			}
			if c.Get(ctx, row).Val() != "newer" {
				found++
			}
		}
		return found
	}
	look := func() error {
		if c.Get(ctx, register).Val() != digits(blue) {
			return errors.New("stale")
		}
		return nil
	}
	require.Zero(t, stale(func() error { return nil }, func() error { return guardedSet(ctx, c, blue, "older") }))
	require.Equal(t, 1, stale(look, func() error { return c.Set(ctx, row, "older", 0).Err() }), "a look and a write are two steps")
}
