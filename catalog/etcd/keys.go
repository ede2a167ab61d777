package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
)

// keys names what lies beneath one prefix. The names are frozen.
type keys struct{ prefix string }

func (k keys) head() string                { return k.prefix + "/head" }
func (k keys) token() string               { return k.prefix + "/token" }
func (k keys) wanted() string              { return k.prefix + "/wanted" }
func (k keys) board(key string) string     { return k.prefix + "/board/" + key }
func (k keys) log() string                 { return k.prefix + "/log/" }
func (k keys) claims() string              { return k.prefix + "/claim/" }
func (k keys) record(rev uint64) string    { return numbered(k.log(), rev) }
func (k keys) claim(rev uint64) string     { return numbered(k.claims(), rev) }
func (k keys) note(key []byte) string      { return strings.TrimPrefix(string(key), k.board("")) }
func numbered(dir string, n uint64) string { return fmt.Sprintf("%s%016x", dir, n) }

// number returns the revision in the name of a record or claim of dir.
func number(dir string, key []byte) (uint64, error) {
	digits := strings.TrimPrefix(string(key), dir)
	n, err := strconv.ParseUint(digits, 16, 64)
	if err != nil || numbered(dir, n) != string(key) {
		return 0, corrupt("a foreign key %q", key)
	}
	return n, nil
}

// The frozen form of a record: format, id, token, payload. Its revision is in
// its key.
const (
	recordFormat = 1
	recordHeader = 1 + 16 + 16
)

var errRecord = errors.New("not a record")

func marshalRecord(rec driver.Record) ([]byte, error) {
	token, err := rec.Token.MarshalBinary()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, recordHeader+len(rec.Payload))
	b = append(b, recordFormat)
	b = append(b, rec.ID[:]...)
	b = append(b, token...)
	return append(b, rec.Payload...), nil
}

func unmarshalRecord(revision uint64, b []byte) (driver.Record, error) {
	rec := driver.Record{Revision: revision}
	if len(b) < recordHeader {
		return rec, fmt.Errorf("%w: %d bytes, want %d or more", errRecord, len(b), recordHeader)
	}
	if b[0] != recordFormat {
		return rec, fmt.Errorf("%w: format %d, want %d", errRecord, b[0], recordFormat)
	}
	copy(rec.ID[:], b[1:17])
	if err := rec.Token.UnmarshalBinary(b[17:recordHeader]); err != nil {
		return rec, fmt.Errorf("%w: %w", errRecord, err)
	}
	// In memory of its own, so that who keeps it keeps no page of the log.
	rec.Payload = bytes.Clone(b[recordHeader:])
	return rec, nil
}
