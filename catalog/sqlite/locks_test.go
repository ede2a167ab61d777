package sqlite_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
)

// The variables by which a child learns which application it plays.
const (
	appVar     = "FENCEPOST_APPLICATION"
	appPathVar = "FENCEPOST_APPLICATION_PATH"
)

// posix makes a child's SQLite lock by process, as it does where the system
// has no other locks.
const posix = "MODERNC_SQLITE_OFD_LOCK=0"

// application plays a part, and returns the exit status.
func application(part, path string) int {
	var err error
	switch part {
	case "copies":
		return copies(path)
	case "closes":
		err = closes(path)
	case "limit":
		err = atItsLimit(path)
	case "shut":
		err = shutOut(path)
	case "late":
		err = switchesLate(path)
	case partStops, partZombie, partCommits:
		err = guarded(part, path)
	case partSecond:
		err = secondLibrary(path)
	case partRaises, partLinked:
		err = raisesRegister(part, path)
	}
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	return 0
}

// child returns the command of a child that plays a part.
func child(t *testing.T, part, path string, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), appVar+"="+part, appPathVar+"="+path), env...)
	return cmd
}

// locksOn returns the lines of /proc/locks about a file. The kernel shows the
// table page by page, and leaves a line out where another one goes meanwhile, so
// that it is read several times.
func locksOn(table io.ReaderAt, path string) (lines []string, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	inode := fmt.Sprintf(" %02x:%02x:%d ", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for range 10 {
		text, err := io.ReadAll(io.NewSectionReader(table, 0, 1<<20))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			_, line, _ = strings.Cut(strings.TrimSpace(line), ": ")
			if strings.Contains(line, inode) && !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines, nil
}

// claimAndCommit makes a catalog of one claim and one commit.
func claimAndCommit(ctx context.Context, path string) (*catalog.Catalog, error) {
	s, err := sqlite.Open(path, sqlite.Config{})
	if err != nil {
		return nil, err
	}
	c, err := catalog.Open(ctx, s, catalog.Config{Generation: 1})
	if err != nil {
		return nil, err
	}
	return c, put(ctx, c, "first", nil)
}

// look opens the catalog once more, for writing and for reading, and closes it.
func look(ctx context.Context, path string) (driver.Head, error) {
	s, err := sqlite.Open(path, sqlite.Config{})
	if err != nil {
		return driver.Head{}, err
	}
	warm := s.Warm(ctx)
	head, err := s.Head(ctx)
	return head, errors.Join(warm, err, s.Close())
}

// copies commits as fast as it can, says which entry was acknowledged, and
// meanwhile opens, hashes and copies every file but -shm all the time.
func copies(path string) int {
	ctx := context.Background()
	c, err := claimAndCommit(ctx, path)
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	for _, work := range []func(string) error{hash, duplicate, hash} {
		go func() {
			for {
				for _, ending := range []string{"", "-wal", "-claim", ""} {
					if err := work(path + ending); err != nil {
						fmt.Println("failed:", err)
					}
				}
			}
		}()
	}
	for i := 1; ; i++ {
		if err := put(ctx, c, fmt.Sprint(i), nil); err != nil {
			fmt.Println("ended:", err)
			return int(exitcodes.CodeOf(err))
		}
		fmt.Println("acknowledged", i)
	}
}

func hash(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(sha256.New(), f)
	return errors.Join(err, f.Close())
}

func duplicate(name string) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0) // as some copiers do
	if err != nil {
		return err
	}
	to, err := os.CreateTemp("", "copy-")
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = io.Copy(to, f)
	return errors.Join(err, f.Close(), to.Close(), os.Remove(to.Name()))
}

func TestAnApplicationMayOpenHashAndCopyTheDatabaseAllTheTimeAndThereIsOneWriter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	app := child(t, "copies", path)
	stdout, err := app.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, app.Start())
	lines := bufio.NewScanner(stdout)
	acknowledged := 0
	next := func() string {
		require.True(t, lines.Scan(), "the application ended")
		if n, err := fmt.Sscanf(lines.Text(), "acknowledged %d", &acknowledged); n == 1 {
			require.NoError(t, err)
			return ""
		}
		return lines.Text()
	}
	require.Empty(t, next())
	wal, err := os.Stat(path + "-wal")
	require.NoError(t, err)

	for range 20 { // another process comes and goes
		require.Empty(t, next())
		visit(t, path)
		head, err := look(t.Context(), path)
		require.NoError(t, err)
		require.GreaterOrEqual(t, head.Revision, uint64(acknowledged+2), "an acknowledged commit is not seen")
		now, err := os.Stat(path + "-wal")
		require.NoError(t, err)
		require.True(t, os.SameFile(wal, now), "the WAL was removed under its writer")
	}

	green, err := catalog.Open(t.Context(), open(t, path), catalog.Config{Generation: 2})
	require.NoError(t, err)
	said := ""
	for said == "" {
		said = next()
	}
	require.Contains(t, said, "superseded")
	require.NoError(t, app.Wait(), "a superseded process ends with 0")
	require.NoError(t, put(t.Context(), green, "green", nil))
	require.NoError(t, green.View(func(r *catalog.Reader) error {
		for i := 1; i <= acknowledged; i++ {
			_, ok, err := entries.Get(r, fmt.Sprint(i))
			require.NoError(t, err)
			require.True(t, ok, "acknowledged commit %d is lost", i)
		}
		return nil
	}))
	require.NoError(t, green.Close())
}

// visit uses the database as an operator does, by SQLite's own shell. As some
// versions close it, they remove the WAL if nobody else has the lock that
// every connection has.
func visit(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	const first, size = 1<<30 + 2, 510 // SQLite's shared range
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: first, Len: size}
	require.NoError(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock))
	require.NoError(t, f.Close())
	out, err := exec.CommandContext(t.Context(), "sqlite3", path, "SELECT count(*) FROM log").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.EqualValues(t, unix.F_RDLCK, lock.Type, "the writer's lock is gone")
}

// closes opens and closes the database once, says what locks are left, and
// waits for its end.
func closes(path string) error {
	c, err := claimAndCommit(context.Background(), path)
	if err != nil {
		return err
	}
	if err := hash(path); err != nil {
		return err
	}
	table, err := os.Open("/proc/locks")
	if err != nil {
		return err
	}
	lines, err := locksOn(table, path)
	fmt.Printf("%d locks %s\n", len(lines), lines)
	return errors.Join(err, c.Close())
}

// A control: the locks that a close drops are those that the test above would
// fail by.
func TestWithoutLocksByOpenFileAnyCloseOfTheDatabaseDropsThem(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]string{"": "1 locks [", posix: "0 locks []\n"} {
		out, err := child(t, "closes", filepath.Join(t.TempDir(), "c.db"), env).CombinedOutput()
		require.Contains(t, string(out), want)
		if env == "" {
			require.NoError(t, err)
			require.Contains(t, string(out), "OFDLCK")
		}
	}
}

// A guard says whether the locks that SQLite keeps for as long as a connection
// is open are there: one on the database, and that on byte 128 of -shm.
type guard struct {
	path  string
	table *os.File
	files map[string]os.FileInfo
}

func newGuard(path string) (g *guard, err error) {
	g = &guard{path: path, files: map[string]os.FileInfo{}}
	if g.table, err = os.Open("/proc/locks"); err != nil {
		return nil, err
	}
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		if g.files[name], err = os.Stat(name); err != nil {
			return nil, err
		}
	}
	return g, g.check()
}

func (g *guard) check() error {
	for name, file := range g.files {
		if now, err := os.Stat(name); err != nil || !os.SameFile(now, file) {
			return fmt.Errorf("%s was replaced", name)
		}
	}
	database, err := locksOn(g.table, g.path)
	if err != nil {
		return err
	}
	shm, err := locksOn(g.table, g.path+"-shm")
	if err != nil {
		return err
	}
	kept := func(line string) bool { return strings.HasSuffix(line, " 128 128") }
	if len(database) == 0 || !slices.ContainsFunc(shm, kept) {
		return fmt.Errorf("locks were dropped: %q, %q are left", database, shm)
	}
	return nil
}

// shutOut holds the catalog as a user of no rights, takes the right to read the
// WAL away, and opens the catalog again.
func shutOut(path string) error {
	const nobody = 65534
	if os.Getuid() == 0 {
		if err := errors.Join(os.Chown(filepath.Dir(path), nobody, nobody), syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody)); err != nil {
			return err
		}
	}
	ctx := context.Background()
	c, err := claimAndCommit(ctx, path)
	if err != nil {
		return err
	}
	g, err := newGuard(path)
	if err != nil {
		return err
	}
	denied := func(name string) error {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if err := os.Chmod(name, 0); err != nil {
			return err
		}
		_, err = look(ctx, path)
		if exitcodes.CodeOf(err) != exitcodes.Config || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), name) {
			return fmt.Errorf("want 78 about %s, and not %w", name, err)
		}
		return errors.Join(os.Chmod(name, info.Mode()), g.check())
	}
	// In this order: SQLite uses a descriptor again that it could not close yet.
	for _, try := range []func() error{
		func() error { return denied(path) },
		func() error { return errors.Join(onlyReadable(ctx, path), g.check()) },
		func() error { return denied(path + "-wal") },
		func() error { _, err := look(ctx, path); return err },
		func() error { return errors.Join(put(ctx, c, "last", nil), c.Confirm(ctx), g.check()) },
	} {
		if err := try(); err != nil {
			return err
		}
	}
	return nil
}

// onlyReadable opens a store for writing while SQLite can only get one for
// reading, and writes by it once it could write.
func onlyReadable(ctx context.Context, path string) error {
	s, err := sqlite.Open(path, sqlite.Config{})
	if err != nil {
		return err
	}
	post := func() error {
		_, err := s.Post(ctx, driver.Note{Key: "k", Value: []byte("{}")})
		return err
	}
	if err := os.Chmod(path, 0o444); err != nil {
		return err
	}
	if err := post(); exitcodes.CodeOf(err) != exitcodes.Config || !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("want 78 about rights, and not %w", err)
	}
	return errors.Join(os.Chmod(path, 0o644), post(), s.Close())
}

func TestAnOpenThatFailsDropsNoLockAndSaysWhy(t *testing.T) {
	t.Parallel()
	for _, env := range []string{"", posix} {
		dir, err := os.MkdirTemp("", "fencepost-") // which every user may enter
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
		require.NoError(t, os.Chmod(dir, 0o755))
		out, err := child(t, "shut", filepath.Join(dir, "c.db"), env).CombinedOutput()
		require.NoError(t, err, "%s %s", env, out)
	}
}

// switchesLate uses another database first, and says what the probe finds.
func switchesLate(path string) error {
	ctx := context.Background()
	db, err := sql.Open("sqlite", path+".other")
	if err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "CREATE TABLE t (x)"); err != nil {
		return err
	}
	c, err := claimAndCommit(ctx, path)
	if err != nil {
		return err
	}
	s, err := sqlite.Open(path, sqlite.Config{})
	if err != nil {
		return err
	}
	probed, err := s.Probe(ctx)
	if err != nil {
		return err
	}
	risks, err := s.Risks(ctx)
	for _, f := range append(probed, risks...) {
		if f.Name == "locks" {
			fmt.Printf("%v: %s → %s\n", f.Grade, f.Detail, f.Remedy)
		}
	}
	return errors.Join(err, s.Close(), c.Close(), db.Close())
}

func TestASwitchOfLocksThatComesTooLateIsAWarningWithTheRemedy(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]string{"": "before any other SQLite database of this process", posix: "unset MODERNC_SQLITE_OFD_LOCK"} {
		out, err := child(t, "late", filepath.Join(t.TempDir(), "c.db"), env).CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Equal(t, 2, strings.Count(string(out), "warn: SQLite's locks on the database file belong to this process"), "%s", out)
		require.Equal(t, 2, strings.Count(string(out), want), "%s", out)
	}
}

func TestAProbeSaysThatLocksBelongToTheOpenFile(t *testing.T) {
	t.Parallel()
	path, _ := claimed(t)
	f := probed(t, open(t, path), "locks")
	require.Equal(t, driver.Fine, f.Grade)
	require.Contains(t, f.Detail, "never its -shm file")
	risks, err := open(t, path).Risks(drivertest.Context(t))
	require.NoError(t, err)
	require.NotContains(t, risks, f)
}
