package errormatrix

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
)

// A lite is one catalog in a file.
type lite struct {
	*ledger
	t    *testing.T
	x    *matrix
	path string
}

func (l *lite) open() *sqlite.Store {
	l.t.Helper()
	s, err := sqlite.Open(l.path, sqlite.Config{})
	require.NoError(l.t, err)
	l.t.Cleanup(func() { _ = s.Close() }) // of a spoilt file it may fail
	return s
}

// commit sends a commit by s, after the head that the file has.
func (l *lite) commit(s driver.Store, size int) error {
	l.t.Helper()
	return l.after(drivertest.Context(l.t), s, drivertest.ReadHead(l.t, s), size)
}

func (l *lite) after(ctx context.Context, s driver.Store, head driver.Head, size int) error {
	rec := drivertest.NextRecord(head, random(size))
	return l.note(rec, s.Append(ctx, head, rec))
}

// raw changes the file behind the driver's back.
func (l *lite) raw(statements ...string) {
	l.t.Helper()
	db, err := sql.Open("sqlite", l.path)
	require.NoError(l.t, err)
	db.SetMaxOpenConns(1)
	for _, s := range statements {
		_, err = db.ExecContext(l.t.Context(), s)
		require.NoError(l.t, err, s)
	}
	require.NoError(l.t, db.Close())
}

// inFile runs a case with a catalog of its own, in dir or a folder of its own.
// Afterwards nothing is lost.
func (x *matrix) inFile(t *testing.T, title, dir string, fn func(l *lite)) {
	t.Helper()
	t.Run(title, func(t *testing.T) {
		if dir == "" {
			dir = t.TempDir()
		}
		l := &lite{ledger: new(ledger), t: t, x: x, path: filepath.Join(dir, "c.db")}
		s, err := sqlite.Open(l.path, sqlite.Config{})
		require.NoError(t, err)
		l.claim(t, s)
		require.NoError(t, l.commit(s, 10))
		require.NoError(t, s.Close())
		l.raw(`PRAGMA wal_checkpoint(TRUNCATE)`) // all is in the file, and no other file is there
		fn(l)
		l.check(t, l.open())
	})
}

func provokeSQLite(t *testing.T) *matrix {
	x := newMatrix(sqlite.Errors())
	x.provokeTables(t)
	x.provokeFiles(t)
	child := program(t)
	x.provokeRights(t, child)
	x.provokeCalls(t, child)
	return x
}

// An interference is what another program does to the tables, and how it is undone.
type interference struct {
	code, do, undo string
	call           func(l *lite, s *sqlite.Store) error // a commit of 200 bytes where it is nil
}

func interferences() []interference {
	readNotes := func(l *lite, s *sqlite.Store) error {
		_, err := s.Notes(drivertest.Context(l.t), "")
		return err
	}
	// A commit takes a row that the table does not take for a conflict; a claim does not.
	install := func(l *lite, s *sqlite.Store) error {
		ctx := drivertest.Context(l.t)
		claiming, err := s.Claim(ctx)
		require.NoError(l.t, err)
		next := drivertest.NextClaim(l.t, claiming.Head(), 2)
		rec := drivertest.ClaimRecord(next)
		rec.Payload = random(200)
		return l.note(rec, claiming.Install(ctx, next, rec))
	}
	drop := `DROP TRIGGER t`
	return []interference{
		{"1", `ALTER TABLE board RENAME TO gone`, `ALTER TABLE gone RENAME TO board`, readNotes},
		{"1", `CREATE TRIGGER t AFTER INSERT ON log BEGIN SELECT abs(-9223372036854775808); END`, drop, nil},
		{"18", `CREATE TRIGGER t AFTER INSERT ON log BEGIN SELECT zeroblob(3000000000); END`, drop, nil},
		{"275", `ALTER TABLE log ADD COLUMN x INT CHECK (length(payload) < 100)`, `ALTER TABLE log DROP COLUMN x`, install},
		{"1299", `ALTER TABLE log ADD COLUMN x INT NOT NULL AS (nullif(length(payload), 200))`, `ALTER TABLE log DROP COLUMN x`, install},
		{"3091", `ALTER TABLE log ADD COLUMN x INT AS (iif(length(payload) = 200, 'many', 1))`, `ALTER TABLE log DROP COLUMN x`, nil},
		{"2067", `CREATE UNIQUE INDEX one ON log ((1)) WHERE revision > 1`, `DROP INDEX one`, install},
		{"1811", `CREATE TRIGGER t BEFORE INSERT ON log BEGIN SELECT raise(ABORT, 'no'); END`, drop, nil},
	}
}

// way says whether it is a trigger that fails.
func (i interference) way() way {
	if strings.HasPrefix(i.do, "CREATE TRIGGER") {
		return statement
	}
	return met
}

func (x *matrix) provokeTables(t *testing.T) {
	x.inFile(t, "tables changed by hand", "", func(l *lite) {
		for _, i := range interferences() {
			s := l.open()
			head := drivertest.ReadHead(l.t, s)
			l.raw(i.do)
			var err error
			if i.call != nil {
				err = i.call(l, s)
			} else {
				err = l.after(drivertest.Context(l.t), s, head, 200)
			}
			require.NoError(l.t, s.Close())
			l.raw(i.undo)
			x.expect(l.t, i.way(), i.code, i.call == nil, err)
		}
	})
	x.inFile(t, "a lock from outside", "", func(l *lite) {
		s, other := l.open(), l.open()
		head := drivertest.ReadHead(l.t, s)
		db, err := sql.Open("sqlite", l.path)
		require.NoError(l.t, err)
		db.SetMaxOpenConns(1)
		_, err = db.ExecContext(l.t.Context(), `BEGIN IMMEDIATE`)
		require.NoError(l.t, err)
		ctx, cancel := context.WithTimeout(l.t.Context(), 2*time.Second)
		defer cancel()
		err = l.after(ctx, s, head, 1)
		_, end := db.ExecContext(l.t.Context(), `ROLLBACK`)
		require.NoError(l.t, end)
		require.NoError(l.t, db.Close())
		x.expect(l.t, met, "5", false, err)
		require.NoError(l.t, l.commit(other, 1))
	})
	x.inFile(t, "a log that takes too long to read", "", func(l *lite) {
		l.raw(`ALTER TABLE log RENAME TO kept`, `CREATE VIEW log AS WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000000000)
			SELECT k.* FROM kept k WHERE (SELECT count(*) FROM c) = 0`)
		ctx, cancel := context.WithTimeout(l.t.Context(), 50*time.Millisecond)
		defer cancel()
		err := l.open().Log(ctx, 0, func(driver.Record) error { return nil })
		l.raw(`DROP VIEW log`, `ALTER TABLE kept RENAME TO log`)
		x.saw(x.judged(l.t, false, err), met) // the client says either what SQLite said, or why
	})
}

// spoil overwrites a part of the file while fn runs.
func (l *lite) spoil(at int64, with []byte, fn func()) {
	l.t.Helper()
	whole, err := os.ReadFile(l.path)
	require.NoError(l.t, err)
	spoilt := append([]byte(nil), whole...)
	copy(spoilt[at:], with)
	require.NoError(l.t, os.WriteFile(l.path, spoilt, 0o600))
	fn()
	require.NoError(l.t, os.WriteFile(l.path, whole, 0o600))
}

func (x *matrix) provokeFiles(t *testing.T) {
	const page = 4096
	head := func(l *lite) error {
		_, err := l.open().Head(drivertest.Context(l.t))
		return err
	}
	x.inFile(t, "a spoilt file", "", func(l *lite) {
		garbage := []byte(strings.Repeat("garbage!", page/8))
		l.spoil(page, garbage, func() { x.expect(l.t, met, "11", false, head(l)) })
		l.spoil(0, garbage[:100], func() { x.expect(l.t, met, "26", false, head(l)) })
	})
	x.inFile(t, "a truncated file", "", func(l *lite) {
		whole, err := os.ReadFile(l.path)
		require.NoError(l.t, err)
		require.NoError(l.t, os.Truncate(l.path, page+page/2))
		x.expect(l.t, met, "11", false, head(l))
		require.NoError(l.t, os.WriteFile(l.path, whole, 0o600))
	})
	x.inFile(t, "a folder in the place of the WAL", "", func(l *lite) {
		require.NoError(l.t, os.Mkdir(l.path+"-wal", 0o700))
		x.expect(l.t, met, "folder", false, head(l))
		require.NoError(l.t, os.Remove(l.path+"-wal"))
	})
	x.inFile(t, "a hot journal", "", func(l *lite) {
		l.raw(`PRAGMA journal_mode = DELETE`)
		db, err := sql.Open("sqlite", l.path)
		require.NoError(l.t, err)
		db.SetMaxOpenConns(1)
		for _, s := range []string{`PRAGMA cache_size = 1`, `PRAGMA cache_spill = 1`, `BEGIN IMMEDIATE`, `CREATE TABLE junk (b)`,
			`WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 100) INSERT INTO junk SELECT randomblob(4000) FROM c`} {
			_, err = db.ExecContext(l.t.Context(), s)
			require.NoError(l.t, err)
		}
		for _, name := range []string{"", "-journal"} { // as a crash would leave them
			b, err := os.ReadFile(l.path + name)
			require.NoError(l.t, err)
			require.NoError(l.t, os.WriteFile(filepath.Join(filepath.Dir(l.path), "crashed.db"+name), b, 0o600))
		}
		_, err = db.ExecContext(l.t.Context(), `ROLLBACK`)
		require.NoError(l.t, err)
		require.NoError(l.t, db.Close())
		l.path = filepath.Join(filepath.Dir(l.path), "crashed.db")
		x.expect(l.t, met, "776", false, head(l))
		claiming, err := l.open().Claim(drivertest.Context(l.t)) // a writer rolls back what the crash left
		require.NoError(l.t, err)
		claiming.Abandon()
	})
	t.Run("paths", func(t *testing.T) {
		at := func(code, path string) {
			s, err := sqlite.Open(path, sqlite.Config{})
			require.NoError(t, err)
			_, err = s.Head(drivertest.Context(t))
			x.expect(t, met, code, false, err)
			_, err = s.Claim(drivertest.Context(t))
			x.judged(t, false, err)
		}
		dir := t.TempDir()
		require.NoError(t, os.Symlink("circle", filepath.Join(dir, "circle")))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
		at("ENOENT", filepath.Join(dir, "missing", "c.db"))
		at("ENOTDIR", filepath.Join(dir, "file", "c.db"))
		at("ELOOP", filepath.Join(dir, "circle", "c.db"))
		at("ENAMETOOLONG", filepath.Join(dir, strings.Repeat("long", 100)))
	})
	x.provokeDisks(t)
}

func (x *matrix) provokeDisks(t *testing.T) {
	dir := mount(t, "1m")
	x.inFile(t, "a full disk", dir, func(l *lite) {
		s := l.open()
		var err error
		for err == nil {
			err = l.commit(s, 8<<10)
		}
		x.expect(l.t, met, "13", driver.OutcomeOf(err) == driver.Unknown, err)
		require.NoError(l.t, s.Close())

		require.NoError(l.t, os.RemoveAll(l.path+"-shm"))
		filler, err := os.Create(filepath.Join(dir, "filler"))
		require.NoError(l.t, err)
		for err == nil {
			_, err = filler.Write(make([]byte, 512))
		}
		require.NoError(l.t, filler.Close())
		_, err = l.open().Head(drivertest.Context(l.t))
		x.expect(l.t, met, "4874", false, err)
		require.NoError(l.t, os.Remove(filler.Name()))
	})
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=4m"))
	for _, name := range []string{"c.db", "c.db-wal", "c.db-shm", "c.db-claim"} {
		require.NoError(t, os.RemoveAll(filepath.Join(dir, name)))
	}
	x.inFile(t, "a read-only mount", dir, func(l *lite) {
		s := l.open()
		head := drivertest.ReadHead(l.t, s)
		require.NoError(l.t, s.Close())
		require.NoError(l.t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		err := l.after(drivertest.Context(l.t), l.open(), head, 1)
		require.NoError(l.t, unix.Mount("", dir, "", unix.MS_REMOUNT, ""))
		x.expect(l.t, met, "8", false, err)
	})
}
