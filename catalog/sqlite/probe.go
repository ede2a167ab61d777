package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
)

var (
	_ driver.Prober     = (*Store)(nil)
	_ driver.RiskTeller = (*Store)(nil)
)

const (
	probeSyncs = 20   // how often the probe syncs
	probeSize  = 4096 // how much it writes before each
)

// Probe implements [driver.Prober]. It writes and removes a file beside the
// database, to see how long the disk takes to sync, and opens the database for
// reading only.
func (s *Store) Probe(ctx context.Context) ([]driver.Finding, error) {
	findings := []driver.Finding{s.probeRights(), s.probeDisk(), s.probePlace(), s.probeSync(ctx)}
	var mode string
	err := s.query(ctx, "probe", func(db *sql.DB) error {
		return db.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode)
	})
	failed := func(f driver.Finding) bool { return f.Grade == driver.Failure }
	switch {
	case err == nil:
		return append(findings, probeLocks(s.path), probeJournal(mode)), nil
	case slices.ContainsFunc(findings, failed):
		return findings, nil // they say why
	default:
		return nil, err
	}
}

// Risks implements [driver.RiskTeller]: a file in memory, or on a file system
// that was trusted; locks that a close would drop; and a journal that another
// program has changed. Every commit is synced, whatever the file says.
func (s *Store) Risks(ctx context.Context) ([]driver.Finding, error) {
	var mode string
	err := s.query(ctx, "risks", func(db *sql.DB) error {
		return db.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode)
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc([]driver.Finding{s.probeDisk(), probeLocks(s.path), probeJournal(mode)}, func(f driver.Finding) bool {
		return f.Grade == driver.Fine || f.Remedy == remedyFull // a full disk loses nothing
	}), nil
}

// probeJournal says what the file's journal mode means. Synchronous is a
// setting of a connection, and the writer's own: see openWriter.
func probeJournal(mode string) driver.Finding {
	f := driver.Finding{Name: "durability", Detail: "journal_mode is wal, and every commit runs with synchronous=FULL"}
	switch mode {
	case "wal":
	case "":
		f.Detail = "there is no file yet; the first claim creates it with journal_mode=wal, and every commit runs with synchronous=FULL"
	default:
		f.Grade, f.Detail = driver.Warning, fmt.Sprintf("journal_mode is %s: another program has changed it; the next writer sets it back to wal", mode)
		f.Remedy = "find out who opens this file, and keep it to Fencepost"
	}
	return f
}

// probeRights says whether this user may write the file and its folder, or what
// there is of them.
func (s *Store) probeRights() driver.Finding {
	f := driver.Finding{Name: "rights", Detail: "this user may write the file and its folder"}
	err := unix.Access(filepath.Dir(s.path), unix.W_OK|unix.X_OK)
	if err == nil {
		for _, name := range []string{s.path, s.path + "-wal", s.path + "-shm", s.path + claimEnding} {
			if err = unix.Access(name, unix.R_OK|unix.W_OK); err != nil && !errors.Is(err, fs.ErrNotExist) {
				break
			}
			err = nil
		}
	}
	if err != nil {
		f.Grade, f.Detail = driver.Failure, fmt.Sprintf("this user may not write the file or its folder: %v", err)
		f.Remedy = cmp.Or(bySystem(err).Remedy, remedyRights)
	}
	return f
}

// probeSync measures the time that the file's disk takes to sync.
func (s *Store) probeSync(ctx context.Context) driver.Finding {
	took, err := timeSyncs(ctx, filepath.Dir(s.path))
	if err != nil {
		return driver.Finding{
			Name: "sync", Grade: driver.Failure, Detail: fmt.Sprintf("no file beside the database can be written and synced: %v", err),
			Remedy: cmp.Or(bySystem(err).Remedy, remedyRights),
		}
	}
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)-1]
	f := driver.Finding{Name: "sync", Detail: fmt.Sprintf("%d syncs of %d bytes beside the database: p50 %v, p99 %v", len(took), probeSize,
		p50.Round(time.Microsecond), p99.Round(time.Microsecond))}
	if slow := 100 * time.Millisecond; p50 > slow {
		f.Grade, f.Remedy = driver.Warning, "every commit waits for a sync: put the file on a faster disk"
	}
	return f
}

// timeSyncs writes and syncs a file of its own in dir, and removes it.
func timeSyncs(ctx context.Context, dir string) (took []time.Duration, err error) {
	file, err := os.CreateTemp(dir, ".fencepost-probe-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	block := make([]byte, probeSize)
	for range probeSyncs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := file.Write(block); err != nil {
			return nil, err
		}
		if err := file.Sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}
