package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Notes implements [driver.Store].
func (s *Store) Notes(ctx context.Context, prefix string) (notes []driver.Note, err error) {
	err = s.query(ctx, "notes", func(db *sql.DB) error {
		notes = nil
		rows, err := db.QueryContext(ctx, `SELECT key, value, version FROM board WHERE key >= ? AND key <> ? ORDER BY key`, prefix, driver.LossesKey)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // reading: its error came before
		for rows.Next() {
			var n driver.Note
			if err := rows.Scan(&n.Key, &n.Value, &n.Version); err != nil {
				return err
			}
			if !strings.HasPrefix(n.Key, prefix) {
				break
			}
			notes = append(notes, n)
		}
		return rows.Err()
	})
	return notes, err
}

// NotesAfter implements [driver.NoteBatcher].
func (s *Store) NotesAfter(ctx context.Context, prefix, after string, n int) (notes []driver.Note, more bool, err error) {
	err = s.query(ctx, "notes", func(db *sql.DB) error {
		rows, err := db.QueryContext(ctx, `SELECT key, value, version FROM board WHERE key >= ? AND key > ? AND key <> ? ORDER BY key LIMIT ?`,
			prefix, after, driver.LossesKey, n+1)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // reading: its error came before
		var all []driver.Note
		for size := 0; size <= driver.NotesBatch && rows.Next(); {
			var note driver.Note
			if err := rows.Scan(&note.Key, &note.Value, &note.Version); err != nil {
				return err
			}
			if !strings.HasPrefix(note.Key, prefix) {
				break
			}
			all = append(all, note)
			size += len(note.Value)
		}
		notes, more = driver.CutNotes(all, after, n)
		return rows.Err()
	})
	return notes, more, err
}

// RemoveNotes implements [driver.NoteBatcher].
func (s *Store) RemoveNotes(ctx context.Context, notes []driver.Note) error {
	return s.transact(ctx, "remove notes", func(w *writer) error {
		for _, n := range notes {
			if err := w.exec(unbounded, `DELETE FROM board WHERE key = ? AND version = ?`, n.Key, n.Version); err != nil {
				return err
			}
		}
		return nil
	})
}

// Post implements [driver.Store].
func (s *Store) Post(ctx context.Context, n driver.Note) (version int64, err error) {
	if err := s.checkSize("post", len(n.Value), MaxNote); err != nil {
		return 0, err
	}
	if n.Key == driver.LossesKey {
		return 0, s.wrap("post", fmt.Errorf("%w: no note has the key %q", errMisuse, n.Key), false)
	}
	err = s.transact(ctx, "post", func(w *writer) error {
		if err := w.noteAt(n); err != nil {
			return err
		}
		if n.Value == nil {
			return w.exec(unbounded, `DELETE FROM board WHERE key = ?`, n.Key)
		}
		version, err = w.putNote(n.Key, n.Value)
		return err
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// putNote writes a note, whatever was there, and returns its version.
func (w *writer) putNote(key string, value []byte) (version int64, err error) {
	version = 1 + rand.Int64N(1<<62)
	return version, w.exec(unbounded, `INSERT INTO board (key, value, version) VALUES (?, ?, ?)
		ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version`, key, value, version)
}

// noteAt returns ErrConflict where a note is not at the version of n.
func (w *writer) noteAt(n driver.Note) error {
	var version int64
	err := w.conn.QueryRowContext(unbounded, `SELECT version FROM board WHERE key = ?`, n.Key).Scan(&version)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if version != n.Version {
		return fmt.Errorf("%w: the note %q has changed", driver.ErrConflict, n.Key)
	}
	return nil
}
