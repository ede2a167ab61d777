package sqlite

import (
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// FuzzWhateverARegistersRowHoldsIsATokenOrCorrupt has rows that only somebody can have
// written who has replaced the table.
func FuzzWhateverARegistersRowHoldsIsATokenOrCorrupt(f *testing.F) {
	db, err := sql.Open("sqlite", ":memory:")
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, db.Close()) })
	conn, err := db.Conn(f.Context())
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, conn.Close()) })
	_, err = conn.ExecContext(f.Context(), "CREATE TABLE fencepost_token (token, holder)")
	require.NoError(f, err)
	for _, token := range []string{"", "g1.e1", "g01.e1", "g1.e1\x00", "g9223372036854775807.e9223372036854775807", strings.Repeat("g", 1000), "\xff", "g1.e1 "} {
		for _, holder := range []string{"", `{"name":"blue"}`, "[", "\xff", strings.Repeat(`{"a":`, 2000)} {
			f.Add(token, holder, true)
			f.Add(token, holder, false)
		}
	}
	g := newGuard([]GuardOption{InRegister()})
	f.Fuzz(func(t *testing.T, token, holder string, isText bool) {
		given := []any{token, holder}
		if !isText {
			given = []any{[]byte(token), []byte(holder)}
		}
		_, err := conn.ExecContext(t.Context(), "DELETE FROM fencepost_token")
		require.NoError(t, err)
		_, err = conn.ExecContext(t.Context(), "INSERT INTO fencepost_token VALUES (?, ?)", given...)
		require.NoError(t, err)
		now, _, err := g.readRegister(conn)
		if err != nil {
			require.ErrorIs(t, err, driver.ErrCorrupt)
			require.Less(t, len(err.Error()), 1000)
			require.False(t, errors.Is(err, fence.ErrFenced))
			return
		}
		seen, _, _ := strings.Cut(token, "\x00") // where SQLite takes a text to end
		require.Equal(t, seen, now.String())
	})
}
