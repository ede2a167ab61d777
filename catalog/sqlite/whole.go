package sqlite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/ownfile"
	"github.com/fencepost/fencepost/internal/step"
)

// A commit is in the WAL before it is in the database file, and a file can be
// cut off from its WAL: by a copy of the one without the other. Until the first
// claim has been moved into the file, nothing in it would show that there was
// one. So the file says whether there can be one:
//
//	view unclaimed   a claim in the log   a WAL     the catalog
//	there            no                   any       was never claimed
//	any              yes                  any       is that of the claim
//	not there        no                   there     was never claimed: a claim is under way or failed, or
//	                                                an older build made the file
//	not there        no                   missing   is incomplete
//
// A new file has the view. The first claim drops it, moves that into the file,
// and only then commits. If that claim fails, the next writer that is closed
// makes the view again. Older builds never look at it.

// unclaimedSQL is a view since that takes one row, and no page.
const unclaimedSQL = `CREATE VIEW IF NOT EXISTS unclaimed AS SELECT 'nobody has claimed this catalog yet' AS note`

const dropUnclaimedSQL = `DROP VIEW IF EXISTS unclaimed`

var errIncomplete = errors.New("the database file is incomplete: it lacks what was in its WAL")

// checkUnclaimed returns errIncomplete if a catalog without a claim may have lost
// it.
func checkUnclaimed(ctx context.Context, q querier) error {
	return checkComplete(ctx, q, func() (bool, error) {
		claimed, said, err := standing(ctx, q)
		return claimed || said, err
	})
}

// standing reports whether the catalog has a claim, and whether it says that it
// has none.
func standing(ctx context.Context, q querier) (claimed, said bool, err error) {
	err = q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM claim),
		EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'view' AND name = 'unclaimed')`).Scan(&claimed, &said)
	return claimed, said, err
}

// checkEmpty returns errIncomplete if a file in which no table was found may
// have lost its tables. An empty database that never had a WAL has lost nothing.
func checkEmpty(ctx context.Context, q querier) error {
	var pages int
	if err := q.QueryRowContext(ctx, `PRAGMA page_count`).Scan(&pages); err != nil {
		return err
	}
	if pages == 0 {
		return fmt.Errorf("%w: it is a part of a file", errIncomplete)
	}
	return checkComplete(ctx, q, func() (complete bool, err error) {
		err = q.QueryRowContext(ctx, `SELECT count(*) > 0 FROM sqlite_schema`).Scan(&complete)
		return complete, err
	})
}

// checkComplete returns errIncomplete if the file is in WAL mode, is not
// complete without a WAL, and has none. The WAL is looked at before and after the
// file. A first claim that begins and ends in between is found by looking again.
func checkComplete(ctx context.Context, q querier, complete func() (bool, error)) error {
	var mode, path string
	if err := q.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode); err != nil || mode != "wal" {
		return err // without a WAL the file is all that there ever was
	}
	if err := q.QueryRowContext(ctx, `SELECT file FROM pragma_database_list WHERE name = 'main'`).Scan(&path); err != nil {
		return err
	}
	for range 3 {
		if holds, err := walHolds(path); holds || err != nil {
			return err
		}
		if is, err := complete(); is || err != nil {
			return err
		}
		if holds, err := walHolds(path); holds || err != nil {
			return err
		}
	}
	return fmt.Errorf("%w, and there is no %s-wal", errIncomplete, path)
}

// checkPages returns an error if the pages of the file don't belong together.
// SQLite can't tell that a WAL beside the file belongs to another one, and mixes
// the two. The check reads all of the file, so only a catalog that was restored
// is checked.
func (w *writer) checkPages(ctx context.Context, path string) error {
	if err := untilFree(ctx, w.moveWAL); err != nil {
		return err
	}
	var found string
	var pages, size int64
	if err := w.conn.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&found); err != nil {
		return err
	}
	if err := w.conn.QueryRowContext(ctx, `SELECT page_count, page_size FROM pragma_page_count, pragma_page_size`).Scan(&pages, &size); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if found == "ok" && info.Size() != pages*size {
		found = fmt.Sprintf("it has %d bytes, and by its header %d pages of %d", info.Size(), pages, size)
	}
	if found == "ok" {
		return nil
	}
	return fmt.Errorf("%w: %s: if a backup was copied beside an old -wal, remove that and the -shm, and copy it again", driver.ErrCorrupt, found)
}

// walHolds reports whether the database at path has a WAL with anything in it.
// SQLite locks no byte of a WAL, so other code may open and close it.
func walHolds(path string) (bool, error) {
	f, err := ownfile.Open(path+"-wal", os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // only read
	// SQLite's file format: a header of 32 bytes, and each frame has one of 24
	// and a page of 512 bytes at least.
	var header [32]byte
	if _, err := f.ReadAt(header[:], 0); err != nil {
		return false, ignore(err, io.EOF)
	}
	info, err := f.Stat()
	return err == nil && info.Size() >= 32+24+512 && binary.BigEndian.Uint32(header[:])&^1 == 0x377f0682, err
}

func ignore(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}

// announce makes the file itself say that its first claim may be in the WAL,
// before that is so: see above. It ends the transaction under way, and begins
// another one. No claim comes between, since this one has locked the -claim file.
func (c *claiming) announce(ctx context.Context) error {
	w := c.w
	if err := w.exec(unbounded, "ROLLBACK"); err != nil {
		return err
	}
	free := func() error { return nil }
	if err := w.inTransaction(ctx, c.store.path, free, func() error { return w.exec(unbounded, dropUnclaimedSQL) }); err != nil {
		return err
	}
	step.Reach(ctx, step.FileAnnounced)
	if err := untilFree(ctx, w.moveWAL); err != nil {
		return err
	}
	step.Reach(ctx, step.FileMarked)
	if err := w.begin(ctx, c.store.path, free); err != nil {
		return err
	}
	if err := c.readHead(); err != nil {
		return err
	}
	if !c.head.IsZero() {
		return fmt.Errorf("%w: another claim has come first", driver.ErrConflict)
	}
	return nil
}

// reconcile makes the file say again that it is unclaimed, or say it no longer,
// whichever is true. Only then may the WAL be emptied. Unless there is a claim, it
// keeps the -claim file locked, so that none begins before w is closed.
func (w *writer) reconcile(ctx context.Context, path string) error {
	claimed, said, err := standing(ctx, w.conn)
	if err != nil || claimed && !said {
		return err
	}
	if err := untilFree(ctx, func() error { return flock(w.claim, unix.LOCK_EX) }); err != nil {
		return err
	}
	return w.inTransaction(ctx, path, func() error { return nil }, func() error {
		claimed, _, err := standing(unbounded, w.conn)
		if err != nil {
			return err
		}
		if claimed {
			return w.exec(unbounded, dropUnclaimedSQL)
		}
		return w.exec(unbounded, unclaimedSQL)
	})
}
