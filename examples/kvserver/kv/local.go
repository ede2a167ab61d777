package kv

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidwall/redcon"
)

// The commands in this file need no data, and are answered in every phase.

func makePing(args [][]byte) (op, error) {
	switch len(args) {
	case 0:
		return says(redcon.AppendString(nil, "PONG"))
	case 1:
		return says(redcon.AppendBulk(nil, args[0]))
	default:
		return op{}, wrongArity("ping")
	}
}

func makeEcho(args [][]byte) (op, error) { return says(redcon.AppendBulk(nil, args[0])) }

func makeQuit([][]byte) (op, error) { return says(redcon.AppendOK(nil)) }

func makeSelect(args [][]byte) (op, error) {
	n, ok := parseInteger(args[0])
	switch {
	case !ok:
		return op{}, errNotInteger
	case n != 0:
		return op{}, errors.New("ERR DB index is out of range")
	}
	return says(redcon.AppendOK(nil))
}

func makeAuth([][]byte) (op, error) {
	return op{}, errors.New("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
}

// makeCommand describes no command: clients take that as not known.
func makeCommand([][]byte) (op, error) { return says(redcon.AppendArray(nil, 0)) }

// makeConfig answers what benchmarks and monitors ask. Every write is durable
// when it is answered, which is more than appendonly says of Redis.
func makeConfig(args [][]byte) (op, error) {
	if !strings.EqualFold(string(args[0]), "get") {
		return op{}, unknownSubcommand("CONFIG", args[0])
	}
	if len(args) < 2 {
		return op{}, wrongArity("config|get")
	}
	var reply []string
	for _, setting := range [][2]string{{"appendonly", "yes"}, {"databases", "1"}, {"save", ""}} {
		if slices.ContainsFunc(args[1:], func(p []byte) bool { return globMatch([]byte(strings.ToLower(string(p))), setting[0]) }) {
			reply = append(reply, setting[:]...)
		}
	}
	return says(bulks(reply...))
}

func unknownSubcommand(name string, sub []byte) error {
	return fmt.Errorf("ERR unknown subcommand '%s'. Try %s HELP.", sub[:min(len(sub), 128)], name) //nolint:staticcheck // Redis' text
}

// bulks is an array of strings.
func bulks(texts ...string) []byte {
	reply := redcon.AppendArray(nil, len(texts))
	for _, text := range texts {
		reply = redcon.AppendBulkString(reply, text)
	}
	return reply
}

func makeClient(args [][]byte) (op, error) {
	sub := strings.ToLower(string(args[0]))
	want, known := map[string]int{"id": 1, "getname": 1, "setname": 2, "setinfo": 3}[sub]
	switch {
	case !known:
		return op{}, unknownSubcommand("CLIENT", args[0])
	case len(args) != want:
		return op{}, wrongArity("client|" + sub)
	}
	switch sub {
	case "id":
		return local(func(s *session) []byte { return redcon.AppendInt(nil, int64(s.id)) })
	case "getname":
		return local(func(s *session) []byte { return redcon.AppendBulkString(nil, s.name) })
	case "setname":
		return setName(string(args[1]))
	default:
		return says(redcon.AppendOK(nil))
	}
}

func setName(name string) (op, error) {
	if strings.ContainsFunc(name, func(r rune) bool { return r < '!' || r > '~' }) {
		return op{}, errors.New("ERR Client names cannot contain spaces, newlines or special characters.") //nolint:staticcheck // Redis' text
	}
	return local(func(s *session) []byte {
		s.name = name
		return redcon.AppendOK(nil)
	})
}

// makeHello refuses the protocol's version 3, whereupon clients go on with 2.
func makeHello(args [][]byte) (op, error) {
	if len(args) == 0 {
		return local(hello)
	}
	version, ok := parseInteger(args[0])
	switch {
	case !ok:
		return op{}, errors.New("ERR Protocol version is not an integer or out of range")
	case version != 2:
		return op{}, errors.New("NOPROTO unsupported protocol version")
	}
	name, err := helloName(args[1:])
	return op{local: func(s *session) []byte {
		if name != nil {
			s.name = *name
		}
		return hello(s)
	}}, err
}

// helloName reads the options of HELLO.
func helloName(options [][]byte) (*string, error) {
	switch {
	case len(options) == 0:
		return nil, nil
	case strings.EqualFold(string(options[0]), "auth"):
		_, err := makeAuth(nil)
		return nil, err
	case len(options) == 2 && strings.EqualFold(string(options[0]), "setname"):
		name := string(options[1])
		_, err := setName(name)
		return &name, err
	default:
		return nil, fmt.Errorf("ERR Syntax error in HELLO option '%s'", options[0])
	}
}

func hello(s *session) []byte {
	reply := redcon.AppendArray(nil, 14)
	pair := func(name, value string) {
		reply = redcon.AppendBulkString(redcon.AppendBulkString(reply, name), value)
	}
	number := func(name string, value int64) {
		reply = redcon.AppendInt(redcon.AppendBulkString(reply, name), value)
	}
	pair("server", "redis")
	pair("version", redisVersion)
	number("proto", 2)
	number("id", int64(s.id))
	pair("mode", "standalone")
	pair("role", s.server.role())
	reply = redcon.AppendArray(redcon.AppendBulkString(reply, "modules"), 0)
	return reply
}
