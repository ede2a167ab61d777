package catalog

import (
	"encoding/binary"
	"fmt"
	"slices"

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

// recordOverhead is what a record takes besides its payload, more or less.
const recordOverhead = 64

// entrySize is what an entry takes in a payload, within a few bytes.
func entrySize(collection, key string, value []byte) int64 {
	return int64(len(collection) + len(key) + len(value) + 4)
}

func appendField[T ~string | ~[]byte](b []byte, field T) []byte {
	b = binary.AppendUvarint(b, uint64(len(field)))
	return append(b, field...)
}

// decodePayload calls fn with each change of a payload. The values alias it.
func decodePayload(payload []byte, fn func(Change)) error {
	var d decoder
	if err := d.decode(payload, fn); err != nil {
		return err
	}
	return d.end()
}

// A decoder reads a payload in pieces, which may be cut anywhere.
type decoder struct {
	begun bool
	rest  []byte // the beginning of a change whose end is to come
	last  string // collection: most changes of a payload are in the same one
}

// decode calls fn with each change that piece completes. The values alias it.
func (d *decoder) decode(piece []byte, fn func(Change)) error {
	if len(d.rest) > 0 {
		piece = append(d.rest, piece...)
	}
	if !d.begun && len(piece) > 0 {
		if piece[0] != payloadFormat {
			return fmt.Errorf("%w: a payload of an unknown format", driver.ErrCorrupt)
		}
		d.begun, piece = true, piece[1:]
	}
	for len(piece) > 0 {
		c, n, err := d.change(piece)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		fn(c)
		piece = piece[n:]
	}
	d.rest = slices.Clip(piece) // what lies behind it is not ours
	return nil
}

// end refuses a payload that was cut short.
func (d *decoder) end() error {
	if !d.begun {
		return fmt.Errorf("%w: a payload of no format", driver.ErrCorrupt)
	}
	if len(d.rest) > 0 {
		return fmt.Errorf("%w: a payload that ends in the middle of a change, after %d bytes of it", driver.ErrCorrupt, len(d.rest))
	}
	return nil
}

// change reads the change at the beginning of b, and returns its length: zero
// where its end is to come.
func (d *decoder) change(b []byte) (c Change, n int, err error) {
	op, rest := b[0], b[1:]
	if op != opSet && op != opDelete {
		return c, 0, fmt.Errorf("%w: a malformed change: operation %d", driver.ErrCorrupt, op)
	}
	var fields [3][]byte
	want := fields[:2+int(opDelete-op)] // only one that sets has a value
	for i := range want {
		length, size := binary.Uvarint(rest)
		if size < 0 {
			return c, 0, fmt.Errorf("%w: a malformed change: an endless length", driver.ErrCorrupt)
		}
		if size == 0 || length > uint64(len(rest)-size) {
			return c, 0, nil
		}
		end := size + int(length)
		want[i], rest = rest[size:end:end], rest[end:]
	}
	if string(fields[0]) != d.last {
		d.last = string(fields[0])
	}
	c = Change{Collection: d.last, Key: string(fields[1]), Value: fields[2], Delete: op == opDelete}
	if err := c.check(); err != nil {
		return c, 0, fmt.Errorf("%w: a malformed change: %w", driver.ErrCorrupt, err)
	}
	return c, len(b) - len(rest), nil
}
