package kv

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"

	"github.com/tidwall/redcon"
)

// The bounds of SCAN. COUNT is a hint, so that a larger one is cut.
const (
	defaultScan = 10
	maxScan     = 10_000
	maxCursors  = 8192
)

// cursors remembers where SCANs go on.
//
// The keyspace is ordered by key, and a cursor stands for the key that comes
// next. Keys never move in that order, so a full iteration returns every key
// that was there from its start to its end, exactly once, whatever else is
// inserted and deleted meanwhile.
//
// The protocol's cursor is a number, which a key doesn't fit into. So the
// server keeps the newest of them, at most size, each with one key; that bounds
// the memory, at the price that a client that pauses while many others scan
// finds its cursor forgotten, as it does at another server. It is told so, and
// begins again: nothing is skipped in silence. Cursors have 53 bits, as many as
// every client's language counts exactly, and begin at random, so that one
// server's are not taken for another's.
type cursors struct {
	mu   sync.Mutex
	size int
	base uint64
	made uint64
	from map[uint64]string
}

const cursorBits = 53

func newCursors(size int) *cursors {
	return &cursors{size: size, base: rand.Uint64N(1 << (cursorBits - 1)), from: make(map[uint64]string)}
}

// add returns a new cursor that goes on at from.
func (c *cursors) add(from string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	cursor := c.base + c.made
	c.from[cursor] = from
	delete(c.from, cursor-uint64(c.size))
	return cursor
}

// find returns where cursor goes on. A cursor can be used again, as a client
// does that didn't get the answer.
func (c *cursors) find(cursor uint64) (from string, ok bool) {
	if cursor == 0 {
		return "", true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	from, ok = c.from[cursor]
	return from, ok
}

// scanning is one SCAN.
type scanning struct {
	cursor  uint64
	count   int
	pattern []byte // nil matches every key
	none    bool   // TYPE names a type that no key has
}

func makeScan(args [][]byte) (op, error) {
	cursor, err := strconv.ParseUint(string(args[0]), 10, 64)
	if err != nil {
		return op{}, fmt.Errorf("ERR invalid cursor")
	}
	q := scanning{cursor: cursor, count: defaultScan}
	if err := q.parse(args[1:]); err != nil {
		return op{}, err
	}
	return op{data: q.run}, nil
}

func (q *scanning) parse(options [][]byte) error {
	if len(options)%2 != 0 {
		return errSyntax
	}
	for i := 0; i < len(options); i += 2 {
		value := options[i+1]
		switch strings.ToUpper(string(options[i])) {
		case "MATCH":
			q.pattern = value
		case "COUNT":
			n, ok := parseInteger(value)
			if !ok {
				return errNotInteger
			}
			if n < 1 {
				return errSyntax
			}
			q.count = int(min(n, maxScan))
		case "TYPE":
			q.none = !strings.EqualFold(string(value), "string")
		default:
			return errSyntax
		}
	}
	return nil
}

// run looks at count keys and answers those that match.
func (q *scanning) run(a *access) []byte {
	from, ok := a.cursors.find(q.cursor)
	if !ok {
		return errorLine(fmt.Sprintf("ERR invalid cursor: %d is none of the newest %d of this server: begin again with SCAN 0", q.cursor, a.cursors.size))
	}
	var next uint64
	var found []string
	seen := 0
	a.scan(from, func(key string) bool {
		if seen == q.count {
			next = a.cursors.add(key)
			return false
		}
		seen++
		if !q.none && (q.pattern == nil || globMatch(q.pattern, key)) {
			found = append(found, key)
		}
		return true
	})
	return scanReply(next, found)
}

func scanReply(cursor uint64, keys []string) []byte {
	reply := redcon.AppendArray(nil, 2)
	reply = redcon.AppendBulkString(reply, strconv.FormatUint(cursor, 10))
	reply = redcon.AppendArray(reply, len(keys))
	for _, key := range keys {
		reply = redcon.AppendBulkString(reply, key)
	}
	return reply
}
