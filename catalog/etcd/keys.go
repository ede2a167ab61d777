package etcd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
)

// keys names what lies beneath one prefix. The names are frozen.
type keys struct{ prefix string }

func (k keys) head() string                { return k.prefix + "/head" }
func (k keys) end() string                 { return k.head() + "\x00end" } // nothing of a catalog beneath this prefix lies between
func (k keys) token() string               { return k.prefix + "/token" }
func (k keys) wanted() string              { return k.prefix + "/wanted" }
func (k keys) losses() string              { return k.token() + "\x00losses" } // a watch of claims covers both
func (k keys) board(key string) string     { return k.prefix + "/board/" + key }
func (k keys) log() string                 { return k.prefix + "/log/" }
func (k keys) claims() string              { return k.prefix + "/claim/" }
func (k keys) record(rev uint64) string    { return numbered(k.log(), rev) }
func (k keys) claim(rev uint64) string     { return numbered(k.claims(), rev) }
func (k keys) note(key []byte) string      { return strings.TrimPrefix(string(key), k.board("")) }
func (k keys) snapshot() string            { return k.prefix + "/snapshot" }
func (k keys) parts() string               { return k.prefix + "/part/" }
func (k keys) partsOf(id driver.ID) string { return k.parts() + id.String() + "/" }
func (k keys) staged() string              { return k.prefix + "/staged/" }
func (k keys) payloads() string            { return k.prefix + "/payload/" }
func numbered(dir string, n uint64) string { return fmt.Sprintf("%s%016x", dir, n) }

func (k keys) part(id driver.ID, n int) string { return fmt.Sprintf("%s%08x", k.partsOf(id), n) }

func (k keys) manifest(rev uint64, id driver.ID) string {
	return numbered(k.staged(), rev) + "/" + id.String()
}

func (k keys) chunks(rev uint64, id driver.ID) string {
	return numbered(k.payloads(), rev) + "/" + id.String() + "/"
}

func (k keys) chunk(rev uint64, id driver.ID, n int) string {
	return fmt.Sprintf("%s%08x", k.chunks(rev, id), n)
}

// snapshotOf returns the snapshot to which a part belongs.
func (k keys) snapshotOf(part []byte) (id driver.ID, err error) {
	text, _, _ := strings.Cut(strings.TrimPrefix(string(part), k.parts()), "/")
	if err := id.UnmarshalText([]byte(text)); err != nil {
		return id, corrupt("a foreign key %q", part)
	}
	return id, nil
}

// batchOf returns revision and commit of a manifest.
func (k keys) batchOf(manifest []byte) (rev uint64, id driver.ID, err error) {
	name := strings.TrimPrefix(string(manifest), k.staged())
	digits, text, _ := strings.Cut(name, "/")
	rev, err = strconv.ParseUint(digits, 16, 64)
	if err == nil {
		err = id.UnmarshalText([]byte(text))
	}
	if err != nil || k.manifest(rev, id) != string(manifest) {
		return 0, id, corrupt("a foreign key %q", manifest)
	}
	return rev, id, nil
}

// number returns the revision in the name of a record or claim of dir.
func number(dir string, key []byte) (uint64, error) {
	digits := strings.TrimPrefix(string(key), dir)
	n, err := strconv.ParseUint(digits, 16, 64)
	if err != nil || numbered(dir, n) != string(key) {
		return 0, corrupt("a foreign key %q", key)
	}
	return n, nil
}

// The frozen form of the log's end: the revision of the newest record, a dash
// and its id, in hexadecimal digits.
const endDigits = 16

var errEnd = errors.New("not the end of a log")

func endText(revision uint64, id driver.ID) string {
	return fmt.Sprintf("%0*x-%s", endDigits, revision, id)
}

func parseEnd(text []byte) (revision uint64, id driver.ID, err error) {
	digits, hex, ok := strings.Cut(string(text), "-")
	if revision, err = strconv.ParseUint(digits, 16, 64); err == nil {
		err = id.UnmarshalText([]byte(hex))
	}
	if err != nil || !ok || endText(revision, id) != string(text) {
		return 0, driver.ID{}, fmt.Errorf("%w: %s", errEnd, printable(text))
	}
	return revision, id, nil
}

// The frozen forms of a record: format, id, token, and then the payload or,
// where that is in chunks of its own, the payload's size in eight bytes. Its
// revision is in its key.
const (
	recordFormat  = 1
	chunkedFormat = 2
	recordHeader  = 1 + 16 + 16
)

var errRecord = errors.New("not a record")

func marshalRecord(rec driver.Record) ([]byte, error) {
	token, err := rec.Token.MarshalBinary()
	if err != nil {
		return nil, err
	}
	chunked := isChunked(rec)
	b := make([]byte, 0, recordHeader+min(len(rec.Payload), chunkBytes))
	b = append(b, recordFormat)
	b = append(b, rec.ID[:]...)
	b = append(b, token...)
	if chunked {
		b[0] = chunkedFormat
		return binary.BigEndian.AppendUint64(b, uint64(len(rec.Payload))), nil
	}
	return append(b, rec.Payload...), nil
}

// unmarshalRecord returns the record in b. Where its payload is in chunks, the
// record has none, and chunked is its size.
func unmarshalRecord(revision uint64, b []byte) (rec driver.Record, chunked uint64, err error) {
	rec.Revision = revision
	if len(b) < recordHeader {
		return rec, 0, fmt.Errorf("%w: %d bytes, want %d or more", errRecord, len(b), recordHeader)
	}
	copy(rec.ID[:], b[1:17])
	if err := rec.Token.UnmarshalBinary(b[17:recordHeader]); err != nil {
		return rec, 0, fmt.Errorf("%w: %w", errRecord, err)
	}
	body := b[recordHeader:]
	switch {
	case b[0] == recordFormat:
		// In memory of its own, so that who keeps it keeps no page of the log.
		rec.Payload = bytes.Clone(body)
		return rec, 0, nil
	case b[0] == chunkedFormat && len(body) == 8:
		if chunked = binary.BigEndian.Uint64(body); chunked > chunkBytes {
			return rec, chunked, nil
		}
	}
	return rec, 0, fmt.Errorf("%w: format %d with %d bytes", errRecord, b[0], len(body))
}
