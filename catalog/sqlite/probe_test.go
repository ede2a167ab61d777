package sqlite_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
)

// probed returns the finding of a name.
func probed(t *testing.T, s *sqlite.Store, name string) driver.Finding {
	t.Helper()
	findings, err := s.Probe(drivertest.Context(t))
	require.NoError(t, err)
	for _, f := range findings {
		require.Equal(t, f.Grade != driver.Fine, f.Remedy != "", "%v", f)
		if f.Name == name {
			return f
		}
	}
	require.FailNow(t, "no finding "+name)
	return driver.Finding{}
}

func TestAProbeSaysHowLongASyncTakesAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "c.db"))
	f := probed(t, s, "sync")
	require.NotEqual(t, driver.Failure, f.Grade)
	require.Regexp(t, `^20 syncs of 4096 bytes beside the database: p50 .*s, p99 .*s$`, f.Detail)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestAProbeSaysThatAFolderIsMissing(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "absent", "c.db"))
	for _, name := range []string{"rights", "sync", "file system"} {
		f := probed(t, s, name)
		require.Equal(t, driver.Failure, f.Grade, name)
		require.Equal(t, "create the folder, or name another file", f.Remedy, name)
	}
}

func TestAProbeFindsThatAnotherProgramHasChangedTheJournalMode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(t, path)
	drivertest.Install(t, s, 1)
	require.Equal(t, driver.Fine, probed(t, s, "durability").Grade)
	require.NoError(t, s.Close())

	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.Exec(`PRAGMA journal_mode = DELETE`)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	f := probed(t, open(t, path), "durability")
	require.Equal(t, driver.Warning, f.Grade)
	require.Contains(t, f.Detail, "journal_mode is delete")
	risks, err := open(t, path).Risks(drivertest.Context(t))
	require.NoError(t, err)
	require.Contains(t, risks, f)
}
