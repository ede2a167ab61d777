package sqlite_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/teststop"
)

var entries = catalog.Bytes("entries")

func put(ctx context.Context, c *catalog.Catalog, key string, value []byte) error {
	return c.Update(ctx, func(tx *catalog.Tx) error { return entries.Set(tx, key, value) })
}

// raw changes the file behind the driver's back.
func raw(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	for _, s := range statements {
		_, err = db.ExecContext(t.Context(), s)
		require.NoError(t, err, s)
	}
	require.NoError(t, db.Close())
}

// claimed makes a catalog with one claim and one commit.
func claimed(t *testing.T) (path string, head driver.Head) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "c.db")
	c, err := catalog.Open(t.Context(), open(t, path), catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, put(t.Context(), c, "k", nil))
	require.NoError(t, c.Close())
	return path, c.Head()
}

func class(t *testing.T, err error) driver.Class {
	t.Helper()
	var e *driver.Error
	require.ErrorAs(t, err, &e)
	return e.Class
}

func TestAMissingHeadBesideLogRecordsIsCorruptionAndNotAFirstOpen(t *testing.T) {
	t.Parallel()
	path, _ := claimed(t)
	raw(t, path, "DELETE FROM claim")
	s := open(t, path)
	_, err := s.Head(t.Context())
	require.ErrorIs(t, err, driver.ErrCorrupt)
	require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
	_, err = catalog.Open(t.Context(), s, catalog.Config{Generation: 9})
	require.ErrorIs(t, err, driver.ErrCorrupt)

	path, _ = claimed(t)
	raw(t, path, "DELETE FROM log")
	_, err = open(t, path).Head(t.Context())
	require.ErrorIs(t, err, driver.ErrCorrupt, "a history of claims alone is no first open either")
}

func TestACorruptHeadIsCorruption(t *testing.T) {
	t.Parallel()
	for _, damage := range []string{
		`UPDATE claim SET claim = '{"token":"g1.e1"'`,
		`UPDATE claim SET claim = replace(claim, 'g1.e1', 'g1.e0')`,
		`UPDATE log SET commit_id = x'00' WHERE revision = 2`,
		`UPDATE log SET revision = 0 WHERE revision = 2; DELETE FROM log WHERE revision = 1`,
		`UPDATE log SET revision = -5 WHERE revision = 2; DELETE FROM log WHERE revision = 1`,
		`DELETE FROM log WHERE revision = 2; UPDATE log SET commit_id = randomblob(16)`,
		`UPDATE log SET commit_id = (SELECT commit_id FROM log WHERE revision = 1)`,
	} {
		path, _ := claimed(t)
		raw(t, path, damage)
		_, err := open(t, path).Head(t.Context())
		require.ErrorIs(t, err, driver.ErrCorrupt, damage)
		require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(err))
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, "restore from a backup")
	}
}

func TestALogWithAGapIsCorruption(t *testing.T) {
	t.Parallel()
	path, head := claimed(t)
	s := open(t, path)
	head = drivertest.Append(t, s, head, nil)
	drivertest.Append(t, s, head, nil)
	raw(t, path, "UPDATE log SET generation = -5 WHERE revision = 3")
	require.ErrorIs(t, s.Log(t.Context(), 2, func(driver.Record) error { return nil }), driver.ErrCorrupt)
	raw(t, path, "DELETE FROM log WHERE revision = 2")
	_, err := catalog.Follow(t.Context(), open(t, path), catalog.Config{})
	require.ErrorIs(t, err, driver.ErrCorrupt)
	require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
}

func TestAFileThatIsNoDatabaseIsCorruptionAndStaysAsItIs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	text := []byte(strings.Repeat("this is a letter to my aunt\n", 100))
	require.NoError(t, os.WriteFile(path, text, 0o644))
	_, err := catalog.Open(t.Context(), open(t, path), catalog.Config{Generation: 1})
	require.ErrorIs(t, err, driver.ErrCorrupt)
	require.ErrorContains(t, err, "no SQLite database")
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, text, got)
}

func TestAnotherProgramsDatabaseIsRefusedAndStaysAsItIs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	raw(t, path, "CREATE TABLE recipes (name TEXT)")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	s := open(t, path)
	_, err = catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
	require.ErrorContains(t, err, "another program")
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	_, err = s.Post(t.Context(), driver.Note{Key: "k", Value: []byte("{}")})
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before[:24], after[:24], "the file's header was changed")
}

func TestASchemaOfAnotherVersionIsRefused(t *testing.T) {
	t.Parallel()
	path, _ := claimed(t)
	raw(t, path, "PRAGMA user_version = 2")
	_, err := open(t, path).Head(t.Context())
	require.ErrorContains(t, err, "start a build that knows this version")
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
}

func TestAMissingFolderIsAConfigurationErrorAndNoEmptyCatalog(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "missing", "c.db"))
	_, err := s.Head(t.Context())
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), "a mistyped path looks like an empty catalog")
	_, err = catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	require.ErrorContains(t, err, "create the folder")
	_, err = open(t, t.TempDir()).Head(t.Context())
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	require.ErrorContains(t, err, "name a file, not a folder")
	_, err = catalog.Open(t.Context(), open(t, t.TempDir()), catalog.Config{Generation: 1})
	require.ErrorContains(t, err, "name a file, not a folder")
}

func TestAFileThatWasReplacedUnderItsHolderEndsItAsAPanic(t *testing.T) {
	t.Parallel()
	path, _ := claimed(t)
	holder, err := catalog.Open(t.Context(), open(t, path), catalog.Config{Generation: 1})
	require.NoError(t, err)
	copied, _ := claimed(t)
	require.NoError(t, os.Rename(copied, path))
	err = put(t.Context(), holder, "stale", nil)
	require.ErrorContains(t, err, "find out which file is the right one")
	require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(err))
	require.Error(t, holder.Close())
}

func TestAWALWithoutItsDatabaseIsCorruptionAndNotAFirstOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	require.NoError(t, os.WriteFile(path+"-wal", make([]byte, 4152), 0o644))
	for _, s := range []driver.Store{open(t, path), open(t, path)} {
		_, err := s.Head(t.Context())
		require.ErrorIs(t, err, driver.ErrCorrupt)
		_, err = s.Claim(t.Context())
		require.ErrorIs(t, err, driver.ErrCorrupt)
		require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
	}
	wal, err := os.Stat(path + "-wal")
	require.NoError(t, err)
	require.EqualValues(t, 4152, wal.Size(), "the evidence was thrown away")
}

func TestASymbolicLinkLeadsToTheSameClaimFile(t *testing.T) {
	t.Parallel()
	path, _ := claimed(t)
	link := filepath.Join(t.TempDir(), "link.db")
	require.NoError(t, os.Symlink(path, link))
	drivertest.Install(t, open(t, link), 2)
	_, err := os.Stat(link + "-claim")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Equal(t, "sqlite:"+path, open(t, link).String())
}

func TestWhoMayNotWriteTheDatabaseMayNotLockItsClaimFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	for database, want := range map[os.FileMode]os.FileMode{0o644: 0o600, 0o660: 0o660} {
		require.NoError(t, os.WriteFile(path, nil, database))
		require.NoError(t, os.Chmod(path, database))
		drivertest.Install(t, open(t, path), 1)
		info, err := os.Stat(path + "-claim")
		require.NoError(t, err)
		require.Equal(t, want, info.Mode().Perm())
		for _, name := range []string{path, path + "-claim", path + "-wal", path + "-shm"} {
			require.NoError(t, os.RemoveAll(name))
		}
	}
}

func TestReadsWriteNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "c.db"))
	_, err := s.Head(t.Context())
	require.NoError(t, err)
	_, err = s.Notes(t.Context(), "")
	require.NoError(t, err)
	require.NoError(t, s.Log(t.Context(), 0, func(driver.Record) error { return nil }))
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, files, "a read has created a file")

	path, _ := claimed(t)
	snapshot := func() (all string) {
		for _, name := range []string{path, path + "-wal"} {
			b, err := os.ReadFile(name)
			if err != nil {
				require.ErrorIs(t, err, os.ErrNotExist)
			}
			all += fmt.Sprintf("%s %x\n", name, b)
		}
		return all
	}
	before := snapshot()
	f, err := catalog.Follow(t.Context(), open(t, path), catalog.Config{Generation: 2})
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.Equal(t, before, snapshot())
}

// mount mounts a tmpfs of a size for the test. It needs root, as CI has.
func mount(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size), "this test mounts a small file system: run it as root")
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// claimOnFullDisk returns the error of a claim that says that the disk is full. A claim
// on a busy machine may end before it has heard of that, and has more time then.
func claimOnFullDisk(t *testing.T, path string, cfg catalog.Config) (err error) {
	t.Helper()
	cfg.ClaimTimeout = 200 * time.Millisecond
	for ; !errors.Is(err, driver.ErrFull) && cfg.ClaimTimeout < time.Minute; cfg.ClaimTimeout *= 4 {
		_, err = catalog.Open(t.Context(), open(t, path), cfg)
		require.Error(t, err)
	}
	require.ErrorIs(t, err, driver.ErrFull)
	return err
}

func TestTheFirstClaimOnAFullDiskFailsAndSaysSo(t *testing.T) {
	t.Parallel()
	dir := mount(t, "1m")
	filler, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 512))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	cfg := catalog.Config{Generation: 1}
	err = claimOnFullDisk(t, filepath.Join(dir, "c.db"), cfg)
	require.ErrorContains(t, err, "make room")
	require.Equal(t, exitcodes.TempFail, exitcodes.CodeOf(err))
	left, err := filepath.Glob(filepath.Join(dir, "c.db*"))
	require.NoError(t, err)
	require.Empty(t, left)

	require.NoError(t, os.Remove(filler.Name()))
	require.NoError(t, filler.Close())
	c, err := catalog.Open(t.Context(), open(t, filepath.Join(dir, "c.db")), cfg)
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

func TestOnAFullDiskNothingIsLostAndNoClaimIsPossibleAndTheErrorSaysSo(t *testing.T) {
	t.Parallel()
	dir := mount(t, "1m")
	path := filepath.Join(dir, "c.db")
	cfg := catalog.Config{Generation: 1, RetryBudget: 50 * time.Millisecond}
	c, err := catalog.Open(t.Context(), open(t, path), cfg)
	require.NoError(t, err)
	acked := 0
	for ; acked < 1000; acked++ {
		if err = put(t.Context(), c, fmt.Sprint(acked), make([]byte, 8<<10)); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, driver.ErrFull)
	require.ErrorContains(t, err, "make room")
	require.Equal(t, driver.NotApplied, catalog.OutcomeOf(err))
	require.NoError(t, c.Confirm(t.Context()), "the holder can still read")

	// What is left of the disk goes too, so that not even a claim fits.
	filler, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 512))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, filler.Close())
	next := cfg
	next.Generation = 2
	err = claimOnFullDisk(t, path, next)
	require.ErrorContains(t, err, path)
	require.Equal(t, exitcodes.TempFail, exitcodes.CodeOf(err))

	require.NoError(t, os.Remove(filler.Name()))
	require.NoError(t, c.Close())
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=8m"))
	c, err = catalog.Open(t.Context(), open(t, path), next)
	require.NoError(t, err)
	count := 0
	require.NoError(t, c.View(func(r *catalog.Reader) error {
		return entries.Scan(r, "", func(string, []byte) bool { count++; return true })
	}))
	require.Equal(t, acked, count, "acknowledged entries")
	require.NoError(t, c.Close())
}

// TestOnADiskThatFillsUpBeforeTheFirstClaimTheErrorSaysSo has room for every
// number of the pages that a first claim needs, and then makes more.
func TestOnADiskThatFillsUpBeforeTheFirstClaimTheErrorSaysSo(t *testing.T) {
	t.Parallel()
	claim := func(s driver.Store) error {
		c, err := s.Claim(drivertest.Context(t))
		if err != nil {
			return err
		}
		next := drivertest.NextClaim(t, c.Head(), 1)
		return c.Install(t.Context(), next, drivertest.ClaimRecord(next))
	}
	for pages := 1; ; pages++ {
		dir := mount(t, fmt.Sprintf("%dk", 4*pages))
		path := filepath.Join(dir, "c.db")
		s := open(t, path)
		err := claim(s)
		if err == nil {
			require.Greater(t, pages, 12, "the file, its shared memory and a claim are more")
			return
		}
		require.ErrorIs(t, err, driver.ErrFull, "%d pages", pages)
		require.ErrorContains(t, err, "make room", "%d pages", pages)
		require.Equal(t, exitcodes.TempFail, exitcodes.CodeOf(err), "%d pages", pages)
		require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=8m"))
		head := drivertest.Install(t, s, 1)
		require.EqualValues(t, 1, head.Claim.Token.Epoch, "%d pages", pages)
		require.NoError(t, s.Close())
		wholeAt(t, path, head)
	}
}

func TestOnAReadOnlyMountAClaimSaysWhatToDo(t *testing.T) {
	t.Parallel()
	dir := mount(t, "4m")
	path := filepath.Join(dir, "c.db")
	first := open(t, path)
	c, err := catalog.Open(t.Context(), first, catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, first.Close())
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = catalog.Open(t.Context(), open(t, path), catalog.Config{Generation: 2})
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	require.ErrorContains(t, err, "mount the file system for writing")
	drivertest.SameHead(t, c.Head(), drivertest.ReadHead(t, open(t, path)))
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT, ""))
	drivertest.SameHead(t, c.Head(), drivertest.ReadHead(t, open(t, path)))
}

func TestACommitGivesWayToAClaimThatIsOnlyWaiting(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	s := open(t, path)
	head := drivertest.Install(t, s, 1)
	// A claimer that has not come to SQLite's own lock yet.
	claimer, err := os.Open(path + "-claim")
	require.NoError(t, err)
	defer func() { require.NoError(t, claimer.Close()) }()
	require.NoError(t, unix.Flock(int(claimer.Fd()), unix.LOCK_EX))
	rec := drivertest.NextRecord(head, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err = s.Append(ctx, head, rec)
	require.ErrorContains(t, err, "a claim is under way")
	require.Equal(t, driver.Class{Disposition: exitcodes.Retry, Remedy: class(t, err).Remedy}, class(t, err))
	require.NoError(t, unix.Flock(int(claimer.Fd()), unix.LOCK_UN))
	require.NoError(t, s.Append(t.Context(), head, rec))
}

// TestAClaimThatAStoppedProcessBlocksFailsWithinItsBoundAndNamesIt stops a
// child in the middle of a commit.
func TestAClaimThatAStoppedProcessBlocksFailsWithinItsBoundAndNamesIt(t *testing.T) {
	t.Parallel()
	path, _ := claimed(t)
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), stopVar+"="+path)
	stdout, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "stopping\n", line)
	teststop.Await(t, child.Process.Pid)
	table, err := os.Open("/proc/locks")
	require.NoError(t, err)
	held, err := locksOn(table, path)
	require.NoError(t, errors.Join(err, table.Close()))
	require.Contains(t, fmt.Sprint(held), "OFDLCK", "which name no process")

	cfg := catalog.Config{Generation: 2, ClaimTimeout: 3 * time.Second}
	_, err = catalog.Open(t.Context(), open(t, path), cfg)
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.ErrorContains(t, err, fmt.Sprintf("process %d ", child.Process.Pid))
	require.ErrorContains(t, err, "which is stopped: continue or kill it")
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
	require.Equal(t, driver.NotApplied, class(t, err).Outcome)

	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	cfg.ClaimTimeout = 0
	c, err := catalog.Open(t.Context(), open(t, path), cfg)
	require.NoError(t, err)
	require.Equal(t, "g2.e2", c.Token().String())
	require.NoError(t, c.Close())
}

const stopVar = "FENCEPOST_STOP_IN_COMMIT"

// stopInCommit is the child's part: it stops itself while it holds SQLite's
// lock.
func stopInCommit(path string) {
	if _, err := sqlite.Open(path, sqlite.Config{}); err != nil {
		return
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
		return
	}
	fmt.Println("stopping")
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	for { // another thread may get the signal, and this one go on for a moment
		_ = syscall.Pause()
	}
}
