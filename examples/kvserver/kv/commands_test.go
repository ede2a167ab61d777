package kv_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/examples/kvserver/kv"
)

func TestCommandsAnswerAsRedisDoes(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	for _, step := range []struct{ command, want string }{
		{"PING", "+PONG"},
		{"ping hello", `"hello"`},
		{"PING a b", "-ERR wrong number of arguments for 'ping' command"},
		{"ECHO x", `"x"`},
		{"ECHO", "-ERR wrong number of arguments for 'echo' command"},
		{"SELECT 0", "+OK"},
		{"SELECT 1", "-ERR DB index is out of range"},
		{"SELECT x", "-ERR value is not an integer or out of range"},

		{"GET a", "nil"},
		{"SET a 1", "+OK"},
		{"GET a", `"1"`},
		{"GET", "-ERR wrong number of arguments for 'get' command"},
		{"SET a", "-ERR wrong number of arguments for 'set' command"},
		{"SET a 2 NX", "nil"},
		{"SET a 2 XX GET", `"1"`},
		{"SET new 1 XX", "nil"},
		{"SET new 1 NX GET", "nil"},
		{"SET a 3 NX XX", "-ERR syntax error"},
		{"SET a 3 bogus", "-ERR syntax error"},
		{"SET a 3 EX 10", "-ERR SET's option EX is not supported: keys have no time to live here"},
		{"SET a 3 KEEPTTL", "-ERR SET's option KEEPTTL is not supported: keys have no time to live here"},
		{"SET a 3 IFEQ 2", "-ERR SET's option IFEQ is not supported"},
		{"MGET a nothing new", `["2" nil "1"]`},

		{"INCR a", ":3"},
		{"INCR counter", ":1"},
		{"SET text abc", "+OK"},
		{"INCR text", "-ERR value is not an integer or out of range"},
		{"SET text 01", "+OK"},
		{"INCR text", "-ERR value is not an integer or out of range"},
		{"SET text +1", "+OK"},
		{"INCR text", "-ERR value is not an integer or out of range"},
		{"SET text 9223372036854775808", "+OK"},
		{"INCR text", "-ERR value is not an integer or out of range"},
		{"SET text 9223372036854775806", "+OK"},
		{"INCR text", ":9223372036854775807"},
		{"INCR text", "-ERR increment or decrement would overflow"},
		{"GET text", `"9223372036854775807"`},
		{"SET text -9223372036854775808", "+OK"},
		{"INCR text", ":-9223372036854775807"},

		{"MSET x 1 y 2 x 3", "+OK"},
		{"MGET x y", `["3" "2"]`},
		{"MSET x 1 y", "-ERR wrong number of arguments for 'mset' command"},
		{"EXISTS x y x nothing", ":3"},
		{"DBSIZE", ":6"},
		{"DEL x nothing x y", ":2"},
		{"EXISTS x y", ":0"},
		{"SCAN 0", `["0" ["a" "counter" "new" "text"]]`},

		{"COMMAND", "[]"},
		{"COMMAND DOCS", "[]"},
		{"CONFIG GET save", `["save" ""]`},
		{"CONFIG GET append*", `["appendonly" "yes"]`},
		{"CONFIG GET nothing", "[]"},
		{"CONFIG GET", "-ERR wrong number of arguments for 'config|get' command"},
		{"CONFIG SET save x", "-ERR unknown subcommand 'SET'. Try CONFIG HELP."},
		{"CLIENT SETINFO LIB-NAME x", "+OK"},
		{"CLIENT SETNAME me", "+OK"},
		{"CLIENT GETNAME", `"me"`},
		{"CLIENT SETNAME", "-ERR wrong number of arguments for 'client|setname' command"},
		{"CLIENT KILL", "-ERR unknown subcommand 'KILL'. Try CLIENT HELP."},
		{"AUTH secret", "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"},
		{"HELLO 3", "-NOPROTO unsupported protocol version"},
		{"HELLO x", "-ERR Protocol version is not an integer or out of range"},
		{"HELLO 2 SETNAME you", `["server" "redis" "version" "6.2.0" "proto" :2 "id" :1 "mode" "standalone" "role" "master" "modules" []]`},
		{"CLIENT GETNAME", `"you"`},
		{"CLIENT ID", ":1"},
		{"HELLO 2 bogus", "-ERR Syntax error in HELLO option 'bogus'"},

		{"FOO bar baz", "-ERR unknown command 'FOO', with args beginning with: 'bar' 'baz' "},
		{"EXPIRE a 1", "-ERR unknown command 'EXPIRE', with args beginning with: 'a' '1' "},
	} {
		require.Equal(t, step.want, c.words(step.command), step.command)
	}
}

func TestQuitAnswersAndIgnoresWhatComesBehindIt(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	c.sendLines("SET a 1", "QUIT", "SET a 2")
	require.Equal(t, "+OK", c.reply())
	require.Equal(t, "+OK", c.reply())
	_, err := c.read()
	require.Error(t, err)
	require.Equal(t, `"1"`, c.another().do("GET", "a"))
}

func TestKeysAndValuesAreAnyBytes(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	key, value := "k\x00\xff\r\n*", "\r\n$3\r\n\x00\xfe"
	require.Equal(t, "+OK", c.do("SET", key, value))
	require.Equal(t, `"\r\n$3\r\n\x00\xfe"`, c.do("GET", key))
	require.Equal(t, `["0" ["k\x00\xff\r\n*"]]`, c.do("SCAN", "0"))
	require.Equal(t, "+OK", c.do("SET", key, ""))
	require.Equal(t, `""`, c.do("GET", key))
}

func TestKeysHaveOneTo4096Bytes(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	longest, tooLong := strings.Repeat("k", catalog.MaxKey), strings.Repeat("k", catalog.MaxKey+1)
	require.Equal(t, "+OK", c.do("SET", longest, "1"))
	require.Equal(t, ":2", c.do("INCR", longest))
	for _, args := range [][]string{
		{"SET", tooLong, "1"}, {"GET", tooLong}, {"DEL", "x", tooLong}, {"INCR", tooLong},
		{"MSET", "a", "1", tooLong, "2"}, {"MGET", tooLong}, {"EXISTS", tooLong},
	} {
		require.Equal(t, "-ERR a key of 4097 bytes: keys have 1 to 4096 bytes", c.do(args...), args[0])
	}
	require.Equal(t, "-ERR a key of 0 bytes: keys have 1 to 4096 bytes", c.do("SET", "", "1"))
	require.Equal(t, ":1", c.do("DBSIZE"), "MSET with one bad key sets none")
}

func TestDataAreInTheCatalogUnderTheirOwnKeys(t *testing.T) {
	store := newFile(t)
	c := leading(t, store, kv.Config{})
	require.Equal(t, "+OK", c.words("MSET a 1 b 2"))
	f, err := catalog.Follow(t.Context(), store, catalog.Config{})
	require.NoError(t, err)
	defer f.Close()
	found := map[string]string{}
	require.NoError(t, f.View(func(r *catalog.Reader) error {
		return catalog.Bytes(kv.Collection).Scan(r, "", func(key string, value []byte) bool {
			found[key] = string(value)
			return true
		})
	}))
	require.Equal(t, map[string]string{"a": "1", "b": "2"}, found)
}

func TestInfoHasTokenPhaseGenerationAndRevision(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	require.Equal(t, "+OK", c.words("SET a 1"))
	require.Equal(t, `"# Fencepost\r\nfencepost_token:g1.e1\r\nfencepost_phase:leading\r\nfencepost_generation:1\r\nfencepost_revision:2\r\n"`,
		c.words("INFO fencepost"))
	all := c.words("INFO")
	for _, part := range []string{"# Server", "# Clients", "connected_clients:1", "# Replication", "role:master", "# Fencepost"} {
		require.Contains(t, all, part)
	}
	require.Equal(t, `""`, c.words("INFO nothing"))
}

func TestInlineCommandsWork(t *testing.T) {
	c := leading(t, newFile(t), kv.Config{})
	c.raw("SET a 'b c'\r\nGET a\r\n")
	require.Equal(t, "+OK", c.reply())
	require.Equal(t, `"b c"`, c.reply())
}
