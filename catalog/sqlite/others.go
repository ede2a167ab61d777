package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
)

var _ driver.Lister = (*Store)(nil)

// Limits of a list of other catalogs, in files of the folder.
const (
	mostEntries = 2000 // that are looked at by their names
	mostOpened  = 64   // that are looked into
)

// OtherCatalogs implements [driver.Lister]: files of the same folder that say in their
// header that they are catalogs. Only SQLite opens them, without a lock and without the
// files beside them: a process of the catalog may have them open in this one.
func (s *Store) OtherCatalogs(ctx context.Context) (names []string, more bool, err error) {
	names, more, err = s.others(ctx)
	return names, more, s.wrap("other catalogs", err, false)
}

func (s *Store) others(ctx context.Context) (names []string, more bool, err error) {
	if s.isClosed() {
		return nil, false, errClosed
	}
	entries, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	opened := 0
	for i, e := range entries {
		if err := ctx.Err(); err != nil {
			return names, true, err
		}
		path := filepath.Join(filepath.Dir(s.path), e.Name())
		if path == s.path || !mayBeCatalog(e) {
			continue
		}
		if opened++; i >= mostEntries || opened > mostOpened || len(names) == driver.MaxOthers {
			return names, true, nil
		}
		if saysCatalog(ctx, path) {
			names = append(names, "sqlite:"+path)
		}
	}
	return names, false, nil
}

// smallestFile is the size of SQLite's smallest page, in bytes; a file has whole pages.
const smallestFile = 512

// mayBeCatalog reports whether an entry may be a catalog's file, by its name and size.
func mayBeCatalog(e fs.DirEntry) bool {
	if !e.Type().IsRegular() || strings.Contains(e.Name(), scratchEnding) {
		return false
	}
	for _, ending := range sideEndings {
		if strings.HasSuffix(e.Name(), ending) {
			return false
		}
	}
	info, err := e.Info()
	return err == nil && info.Size() >= smallestFile && info.Size()%smallestFile == 0
}

// saysCatalog reports whether a file's header says that it is a catalog. What can't be
// read is none.
func saysCatalog(ctx context.Context, path string) bool {
	db, err := sql.Open("sqlite", dsn(path, "mode=ro", "immutable=1"))
	if err != nil {
		return false
	}
	defer func() { _ = db.Close() }() // reading: its error came before
	var app int
	err = db.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&app)
	return err == nil && app == applicationID
}
