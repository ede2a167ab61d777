package catalog

import (
	"encoding/binary"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
)

// A Change is what a commit does to one entry.
type Change struct {
	Collection string
	Key        string
	Value      []byte // nil where Delete is set
	Delete     bool
}

// The payload of a record is frozen: payloadFormat, then each change as an
// operation, a collection and a key, and a value where the operation sets one.
// Each of the three is a length as a uvarint and that many bytes.
const (
	payloadFormat = 1
	opSet         = 1
	opDelete      = 2
)

// newPayload begins a payload that holds no change yet.
func newPayload() []byte { return []byte{payloadFormat} }

func appendChanges(b []byte, changes []Change) []byte {
	for _, c := range changes {
		op := byte(opSet)
		if c.Delete {
			op = opDelete
		}
		b = append(b, op)
		b = appendField(b, c.Collection)
		b = appendField(b, c.Key)
		if op == opSet {
			b = appendField(b, c.Value)
		}
	}
	return b
}

func appendField[T ~string | ~[]byte](b []byte, field T) []byte {
	b = binary.AppendUvarint(b, uint64(len(field)))
	return append(b, field...)
}

// decodePayload calls fn with each change of a payload. The values alias it.
func decodePayload(payload []byte, fn func(Change)) error {
	if len(payload) == 0 || payload[0] != payloadFormat {
		return fmt.Errorf("%w: a payload of an unknown format", driver.ErrCorrupt)
	}
	rest := payload[1:]
	last := "" // most changes of a commit are in the same collection
	field := func() (f []byte, ok bool) {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > uint64(len(rest)-size) {
			return nil, false
		}
		f, rest = rest[size:size+int(n):size+int(n)], rest[size+int(n):]
		return f, true
	}
	for len(rest) > 0 {
		op := rest[0]
		rest = rest[1:]
		name, ok1 := field()
		key, ok2 := field()
		if string(name) != last {
			last = string(name)
		}
		c := Change{Collection: last, Key: string(key), Delete: op == opDelete}
		ok3 := op == opDelete
		if op == opSet {
			c.Value, ok3 = field()
		}
		if !ok1 || !ok2 || !ok3 || c.check() != nil {
			return fmt.Errorf("%w: a malformed change, %d bytes before the payload's end", driver.ErrCorrupt, len(rest))
		}
		fn(c)
	}
	return nil
}
