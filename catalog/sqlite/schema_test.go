package sqlite_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The schema is frozen: what this test compares with may only change together
// with the schema's version. The views of guards stand beside it.
func TestTheSchemaIsFrozen(t *testing.T) {
	t.Parallel()
	path, _ := claimed(t)
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.Equal(t, frozen(t, "schema.v1.sql"), statements(t, db, "NOT LIKE 'fencepost%'"))
	require.Equal(t, frozen(t, "guard.v1.sql"), statements(t, db, "LIKE 'fencepost%'"))
	var app, version int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT * FROM pragma_application_id, pragma_user_version").Scan(&app, &version))
	require.Equal(t, 0x464e4350, app)
	require.Equal(t, 1, version)
}

func frozen(t *testing.T, name string) string {
	t.Helper()
	want, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return string(want)
}

// statements returns what makes the tables and views whose name matches.
func statements(t *testing.T, db *sql.DB, match string) string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name "+match+" ORDER BY name")
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	var got strings.Builder
	for rows.Next() {
		var statement string
		require.NoError(t, rows.Scan(&statement))
		got.WriteString(statement + ";\n")
	}
	require.NoError(t, rows.Err())
	return got.String()
}
