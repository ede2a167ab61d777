package catalog

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

// golden compares got with a file that no change may alter: the encoding is
// frozen.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	want, err := os.ReadFile(path)
	if os.IsNotExist(err) && *create {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(hex.Dump(got)), 0o644))
		return
	}
	require.NoError(t, err)
	require.Equal(t, string(want), hex.Dump(got))
}

var create = flag.Bool("create", false, "write golden files that are missing")

func sample() []Change {
	return []Change{
		{Collection: "accounts", Key: "alice", Value: []byte("10")},
		{Collection: "accounts", Key: "bob", Delete: true},
		{Collection: "ünïcode", Key: string([]byte{0, 255}), Value: []byte{}},
		{Collection: "c", Key: strings.Repeat("k", 200), Value: []byte(strings.Repeat("v", 300))},
	}
}

func decode(t *testing.T, payload []byte) (changes []Change) {
	t.Helper()
	require.NoError(t, decodePayload(payload, func(c Change) { changes = append(changes, c) }))
	return changes
}

func TestThePayloadsEncodingIsFrozen(t *testing.T) {
	payload := appendChanges(newPayload(), sample())
	golden(t, "payload.golden", payload)
	require.Equal(t, sample(), decode(t, payload))
	require.Empty(t, decode(t, newPayload()))
}

func TestAPayloadThatIsCutOrOfAnotherFormatIsCorruption(t *testing.T) {
	payload := appendChanges(newPayload(), sample()[:1])
	for n := range payload {
		if n == 1 {
			continue // a payload without changes is one
		}
		require.ErrorIs(t, decodePayload(payload[:n], func(Change) {}), driver.ErrCorrupt, "cut to %d bytes", n)
	}
	payload[0] = payloadFormat + 1
	require.ErrorIs(t, decodePayload(payload, func(Change) {}), driver.ErrCorrupt)
}

func FuzzPayload(f *testing.F) {
	f.Add(appendChanges(newPayload(), sample()))
	f.Add(newPayload())
	f.Add([]byte{payloadFormat, opSet, 1, 'c', 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var changes []Change
		if decodePayload(payload, func(c Change) { changes = append(changes, c) }) != nil {
			return
		}
		var again []Change
		require.NoError(t, decodePayload(appendChanges(newPayload(), changes), func(c Change) { again = append(again, c) }))
		require.Equal(t, changes, again)
	})
}
