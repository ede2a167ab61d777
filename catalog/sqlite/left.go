package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/ownfile"
)

var _ driver.Cleaner = (*Store)(nil)

// Left implements [driver.Cleaner]: scratch places, and side files without a name of
// their own yet. Without a folder there is nothing.
func (s *Store) Left(context.Context) ([]driver.Leftover, error) {
	left, err := s.left()
	return left, s.wrap("left", err, false)
}

func (s *Store) left() (left []driver.Leftover, err error) {
	if s.isClosed() {
		return nil, errClosed
	}
	entries, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		l, ok := s.leftover(e)
		if ok && !slices.Contains(left, l) { // a place has several files
			left = append(left, l)
		}
	}
	slices.SortStableFunc(left, func(a, b driver.Leftover) int { return cmp.Or(a.Made.Compare(b.Made), cmp.Compare(a.Name, b.Name)) })
	return left, nil
}

// formerEnding is that of a lock file of earlier builds.
const formerEnding = "-presence"

// leftover returns what an entry of the folder is part of, if that is a leftover.
func (s *Store) leftover(e fs.DirEntry) (l driver.Leftover, ok bool) {
	if !e.Type().IsRegular() {
		return l, false
	}
	if l, ok = s.placeOf(e.Name()); ok {
		return l, true
	}
	if !ownfile.IsUnfinished(e.Name(), s.path+claimEnding) && !ownfile.IsUnfinished(e.Name(), s.path+formerEnding) {
		return l, false
	}
	info, err := e.Info()
	if err != nil {
		return l, false // it is gone
	}
	return driver.Leftover{Kind: driver.UnfinishedFile, Name: e.Name(), Made: info.ModTime()}, true
}

// placeOf returns the scratch place to which a file belongs.
func (s *Store) placeOf(file string) (l driver.Leftover, ok bool) {
	// A lock file has a name of its own until it is whole: see ownfile.OpenLock.
	rest, found := strings.CutPrefix(strings.TrimPrefix(file, "."), filepath.Base(s.path)+scratchEnding)
	length := len(driver.NewScratchName())
	if !found || len(rest) < length {
		return l, false
	}
	return driver.ScratchLeft(rest[:length])
}

// RemoveLeft implements [driver.Cleaner].
func (s *Store) RemoveLeft(_ context.Context, l driver.Leftover) (removed bool, err error) {
	removed, err = s.removeLeft(l)
	return removed, s.wrap("remove left", err, false)
}

func (s *Store) removeLeft(l driver.Leftover) (removed bool, err error) {
	if s.isClosed() {
		return false, errClosed
	}
	entries, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	var names []string
	for _, e := range entries {
		is, ok := s.leftover(e)
		if !ok || is.Kind != l.Kind || is.Name != l.Name {
			continue
		}
		if !is.Expired() {
			return false, fmt.Errorf("%w: %s %q was made at %v, and may be in use", errMisuse, l.Kind, l.Name, is.Made)
		}
		names = append(names, filepath.Join(filepath.Dir(s.path), e.Name()))
	}
	return removeAll(names)
}
