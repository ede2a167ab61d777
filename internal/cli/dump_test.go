package cli_test

import (
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
)

// lines reads JSON lines.
func lines(t *testing.T, text string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(text) {
		var v map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &v), line)
		all = append(all, v)
	}
	return all
}

// read returns a field of a dump, whichever form it has.
func read(t *testing.T, e map[string]any, name string) string {
	t.Helper()
	text, plain := e[name].(string)
	coded, marked := e[name+"_base64"].(string)
	require.NotEqual(t, plain, marked, "%v", e)
	if plain {
		return text
	}
	raw, err := base64.StdEncoding.DecodeString(coded)
	require.NoError(t, err)
	return string(raw)
}

func TestADumpKeepsEveryByte(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	entries := map[string]string{
		"plain": "text <&> \u2028 \x00 é", "\xff\xfe": "binary key", "binary": "\x80\x00\xff", "empty": "", "replacement": "\ufffd", "base64": "/w==",
	}
	require.NoError(t, hold(t.Context(), "sqlite:"+path, 1, "blue", "", func(c *catalog.Catalog) error {
		return c.Update(t.Context(), func(tx *catalog.Tx) error {
			for k, v := range entries {
				if err := catalog.Bytes("rows\xf0").Set(tx, k, []byte(v)); err != nil {
					return err
				}
			}
			return nil
		})
	}))
	for _, args := range [][]string{{"dump"}, {"dump", "--log"}, {"dump", "--collection", "rows\xf0"}, {"dump", "--log", "--collection", "rows\xf0"}} {
		got := run(t, on(path), args...)
		require.Equal(t, exitcodes.Success, got.code, got.stderr)
		all := lines(t, got.stdout)
		last := all[len(all)-1]
		require.Equal(t, true, last["end"])
		require.EqualValues(t, len(all)-2, last["lines"])
		dumped := map[string]string{}
		for _, line := range all[1 : len(all)-1] {
			changes := []any{line}
			if found, isCommit := line["changes"].([]any); isCommit {
				changes = found
			}
			for _, ch := range changes {
				e := ch.(map[string]any)
				require.Equal(t, "rows\xf0", read(t, e, "collection"))
				dumped[read(t, e, "key")] = read(t, e, "value")
			}
		}
		require.Equal(t, entries, dumped, args)
	}
}

func TestADumpOfTheLogTellsADeletionFromAnEmptyValue(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	rows := catalog.Bytes("rows")
	require.NoError(t, hold(t.Context(), "sqlite:"+path, 1, "blue", "", func(c *catalog.Catalog) error {
		if err := c.Update(t.Context(), func(tx *catalog.Tx) error { return rows.Set(tx, "k", nil) }); err != nil {
			return err
		}
		return c.Update(t.Context(), func(tx *catalog.Tx) error {
			_, err := rows.Delete(tx, "k")
			return err
		})
	}))
	text := run(t, on(path), "dump", "--log").stdout
	require.Contains(t, text, `"changes":[{"collection":"rows","key":"k","value":""}]`)
	require.Contains(t, text, `"changes":[{"collection":"rows","delete":true,"key":"k"}]`)
	require.Equal(t, 0.0, lines(t, run(t, on(path), "dump").stdout)[1]["lines"])
}

func TestADumpOfACompactedLogSaysWhereItBegins(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	store, err := storeurl.Open(t.Context(), "sqlite:"+path, storeurl.Config{})
	require.NoError(t, err)
	c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1, CompactAfter: 1})
	require.NoError(t, err)
	var snapshot driver.Snapshot
	for snapshot.IsZero() {
		require.NoError(t, update(c, 3))
		snapshot, err = catalog.Compacted(t.Context(), store)
		require.NoError(t, err)
	}
	require.NoError(t, c.Close())
	newest := c.Head().Revision
	snapshot, err = catalog.Compacted(t.Context(), store)
	require.NoError(t, err)
	require.NoError(t, store.Close())

	got := run(t, on(path), "dump", "--log")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	all := lines(t, got.stdout)
	require.EqualValues(t, snapshot.Revision-1, all[0]["after"])
	require.Len(t, all, int(newest-snapshot.Revision+1)+2)
	require.EqualValues(t, snapshot.Revision, all[1]["revision"])

	got = run(t, on(path), "dump")
	require.Equal(t, exitcodes.Success, got.code, got.stderr)
	all = lines(t, got.stdout)
	require.NotContains(t, all[0], "after")
	require.Len(t, all, 3+2)
}
