package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
)

// partSecond is that of a child that has -shm open besides, as another library of
// SQLite would.
const partSecond = "guarded: has another library"

func secondLibrary(path string) error {
	ctx := context.Background()
	s, err := sqlite.Open(path, sqlite.Config{})
	if err != nil {
		return err
	}
	blue, err := catalog.Open(ctx, s, catalog.Config{Generation: 1})
	if err != nil {
		return err
	}
	db, err := s.OpenDB("")
	if err != nil {
		return err
	}
	for range 3 { // many connections of one library are one
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		if err := conn.PingContext(ctx); err != nil {
			return err
		}
	}
	tx, err := sqlite.Begin(ctx, db, blue.Token())
	if err != nil {
		return err
	}
	if err := tx.Rollback(); err != nil {
		return err
	}
	other, err := os.Open(path + "-shm") // which is not closed: that would drop SQLite's locks
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(other)
	_, claim := s.Claim(ctx)
	more, err := s.OpenDB("")
	if err != nil {
		return err
	}
	conn := more.PingContext(ctx)
	risks, err := s.Risks(ctx)
	if err != nil || !slices.ContainsFunc(risks, func(f driver.Finding) bool { return f.Name == "locks" && f.Grade == driver.Failure }) {
		return fmt.Errorf("%w: %v", errNotRefused, risks)
	}
	own, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	_, guard := sqlite.Begin(ctx, own, blue.Token())
	for what, err := range map[string]error{"claim": claim, "connection": conn, "guard": guard} {
		if err == nil || exitcodes.CodeOf(err) != exitcodes.Config {
			return fmt.Errorf("%s: %w", what, errors.Join(errNotRefused, err))
		}
	}
	fmt.Println(claim)
	return nil
}

var errNotRefused = errors.New("not refused as configuration")

func TestASecondLibraryThatOpensTheCatalogsFileInThisProcessIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	out, err := child(t, partSecond, path).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "2 times "+path+"-shm")
	require.Contains(t, string(out), "use modernc.org/sqlite alone for this file")
}
