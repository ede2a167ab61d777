package kv

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fencepost/fencepost/catalog"
)

// A command is an entry of the table.
type command struct {
	// arity is the number of arguments, the name included; where it is
	// negative, that many at least.
	arity int

	// make checks the arguments, without the name, and makes an op of them.
	// Its error is the client's reply, beginning with a word in capitals.
	make func(args [][]byte) (op, error)
}

// An op is a command whose arguments were checked. One of local and data is set.
type op struct {
	local  func(s *session) []byte // answers without the data
	data   func(a *access) []byte  // answers from the data, and changes them
	writes bool
	bytes  int      // of keys and values, for the bound of a batch
	args   [][]byte // as they came, with the name; for another server
}

// commandTable returns the commands that the server knows, by their names in
// lower case. Those of transactions are the session's.
func commandTable() map[string]command {
	return map[string]command{
		"set":      {-3, makeSet},
		"get":      {2, makeGet},
		"mget":     {-2, makeMGet},
		"del":      {-2, makeDel},
		"exists":   {-2, makeExists},
		"incr":     {2, makeIncr},
		"mset":     {-3, makeMSet},
		"dbsize":   {1, makeDBSize},
		"scan":     {-2, makeScan},
		"ping":     {-1, makePing},
		"echo":     {2, makeEcho},
		"info":     {-1, makeInfo},
		"select":   {2, makeSelect},
		"command":  {-1, makeCommand},
		"config":   {-2, makeConfig},
		"client":   {-2, makeClient},
		"hello":    {-1, makeHello},
		"auth":     {-2, makeAuth},
		"quit":     {-1, makeQuit},
		hopCommand: {2, makeHop},
	}
}

// parse makes an op of a command. Its error is the client's reply.
func (s *Server) parse(name string, args [][]byte) (op, error) {
	c, ok := s.commands[name]
	if !ok {
		return op{}, unknownCommand(args)
	}
	if n := len(args); n != c.arity && (c.arity >= 0 || n < -c.arity) {
		return op{}, wrongArity(name)
	}
	return c.make(args[1:])
}

// errSyntax is Redis' answer to options that it can't make sense of.
var errSyntax = errors.New("ERR syntax error")

func wrongArity(name string) error {
	return fmt.Errorf("ERR wrong number of arguments for '%s' command", name)
}

// unknownCommand words its error as Redis does.
func unknownCommand(args [][]byte) error {
	const most = 128
	var shown strings.Builder
	for _, arg := range args[1:] {
		if shown.Len() >= most {
			break
		}
		fmt.Fprintf(&shown, "'%s' ", arg[:min(len(arg), most-shown.Len())])
	}
	name := args[0][:min(len(args[0]), most)]
	return fmt.Errorf("ERR unknown command '%s', with args beginning with: %s", name, shown.String())
}

// checkKeys refuses keys that the catalog doesn't take.
func checkKeys(keys ...[]byte) error {
	for _, key := range keys {
		if len(key) == 0 || len(key) > catalog.MaxKey {
			return fmt.Errorf("ERR a key of %d bytes: keys have 1 to %d bytes", len(key), catalog.MaxKey)
		}
	}
	return nil
}

// sizeOf adds up the bytes of arguments.
func sizeOf(args [][]byte) (n int) {
	for _, arg := range args {
		n += len(arg)
	}
	return n
}

// local makes an op that answers without the data.
func local(answer func(s *session) []byte) (op, error) { return op{local: answer}, nil }

// says makes an op that always answers the same.
func says(reply []byte) (op, error) {
	return local(func(*session) []byte { return reply })
}
