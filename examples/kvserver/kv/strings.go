package kv

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tidwall/redcon"
)

// setOptions are those of SET that the server knows.
type setOptions struct {
	ifAbsent, ifPresent, get bool
}

func makeSet(args [][]byte) (op, error) {
	key, value := args[0], args[1]
	opts, err := parseSetOptions(args[2:])
	if err == nil {
		err = checkKeys(key)
	}
	return op{writes: true, bytes: len(key) + len(value), data: func(a *access) []byte {
		return set(a, key, value, opts)
	}}, err
}

// parseSetOptions refuses what it can't keep: a client that asks for a time to
// live must not get a key that stays for ever.
func parseSetOptions(args [][]byte) (o setOptions, err error) {
	for _, arg := range args {
		switch name := strings.ToUpper(string(arg)); name {
		case "NX":
			o.ifAbsent = true
		case "XX":
			o.ifPresent = true
		case "GET":
			o.get = true
		case "EX", "PX", "EXAT", "PXAT", "KEEPTTL":
			return o, fmt.Errorf("ERR SET's option %s is not supported: keys have no time to live here", name)
		case "IFEQ", "IFNE", "IFDEQ", "IFDNE":
			return o, fmt.Errorf("ERR SET's option %s is not supported", name)
		default:
			return o, errSyntax
		}
	}
	if o.ifAbsent && o.ifPresent {
		return o, errSyntax
	}
	return o, nil
}

func set(a *access, key, value []byte, o setOptions) []byte {
	old, existed := a.get(key)
	apply := !(o.ifAbsent && existed) && !(o.ifPresent && !existed)
	if apply {
		a.set(key, value)
	}
	switch {
	case o.get:
		return bulkOrNull(old, existed)
	case apply:
		return redcon.AppendOK(nil)
	default:
		return redcon.AppendNull(nil)
	}
}

func bulkOrNull(value []byte, ok bool) []byte {
	if !ok {
		return redcon.AppendNull(nil)
	}
	return redcon.AppendBulk(nil, value)
}

func makeGet(args [][]byte) (op, error) {
	return op{data: func(a *access) []byte { return bulkOrNull(a.get(args[0])) }}, checkKeys(args...)
}

func makeMGet(args [][]byte) (op, error) {
	return op{data: func(a *access) []byte {
		reply := redcon.AppendArray(nil, len(args))
		for _, key := range args {
			reply = append(reply, bulkOrNull(a.get(key))...)
		}
		return reply
	}}, checkKeys(args...)
}

func makeDel(args [][]byte) (op, error) {
	return op{writes: true, bytes: sizeOf(args), data: func(a *access) []byte {
		return count(args, a.del)
	}}, checkKeys(args...)
}

func makeExists(args [][]byte) (op, error) {
	return op{data: func(a *access) []byte {
		return count(args, func(key []byte) bool { _, ok := a.get(key); return ok })
	}}, checkKeys(args...)
}

// count answers for how many keys fn is true.
func count(keys [][]byte, fn func(key []byte) bool) []byte {
	var n int64
	for _, key := range keys {
		if fn(key) {
			n++
		}
	}
	return redcon.AppendInt(nil, n)
}

func makeMSet(args [][]byte) (op, error) {
	if len(args)%2 != 0 {
		return op{}, wrongArity("mset")
	}
	var err error
	for i := 0; i < len(args) && err == nil; i += 2 {
		err = checkKeys(args[i])
	}
	return op{writes: true, bytes: sizeOf(args), data: func(a *access) []byte {
		for i := 0; i < len(args); i += 2 {
			a.set(args[i], args[i+1])
		}
		return redcon.AppendOK(nil)
	}}, err
}

func makeIncr(args [][]byte) (op, error) {
	key := args[0]
	return op{writes: true, bytes: len(key) + 20, data: func(a *access) []byte {
		return incr(a, key)
	}}, checkKeys(key)
}

var (
	errNotInteger = errors.New("ERR value is not an integer or out of range")
	errOverflow   = errors.New("ERR increment or decrement would overflow")
)

func incr(a *access, key []byte) []byte {
	old, existed := a.get(key)
	n, ok := parseInteger(old)
	switch {
	case existed && !ok:
		return errorLine(errNotInteger.Error())
	case n == math.MaxInt64:
		return errorLine(errOverflow.Error())
	}
	a.set(key, strconv.AppendInt(nil, n+1, 10))
	return redcon.AppendInt(nil, n+1)
}

// parseInteger reads the one decimal form of a 64-bit number: no sign but a
// minus, no leading zero, no space.
func parseInteger(text []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(text), 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == string(text)
}

func makeDBSize([][]byte) (op, error) {
	return op{data: func(a *access) []byte {
		var n int64
		a.scan("", func(string) bool { n++; return true })
		return redcon.AppendInt(nil, n)
	}}, nil
}
