package sqlite_test

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/internal/orders"
)

func TestAClosedStoreKeepsNoFileOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "c.db"))
	head := drivertest.Install(t, s, 1)
	require.NoError(t, s.Append(t.Context(), head, drivertest.NextRecord(head, nil)))
	drivertest.ReadHead(t, s)
	require.NoError(t, s.Close())
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, fd := range fds {
		// The descriptor of the listing itself has gone by now.
		if path, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			require.NotEqual(t, dir, filepath.Dir(path), "%s is open", path)
		}
	}
}

// wholeAt asserts that the database file alone is all of a catalog.
func wholeAt(t *testing.T, path string, want driver.Head) {
	t.Helper()
	s := open(t, alone(t, path))
	drivertest.SameHead(t, want, drivertest.ReadHead(t, s))
	require.Len(t, drivertest.ReadLog(t, s, 0), int(want.Revision))
	require.NoError(t, s.Close())
}

func TestAfterACleanEndACopyOfTheFileAloneIsWhole(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(*sqlite.Store){
		"it wrote":               func(*sqlite.Store) {},
		"it read last":           func(s *sqlite.Store) { drivertest.ReadHead(t, s); drivertest.ReadLog(t, s, 0) },
		"it was warm, and wrote": func(s *sqlite.Store) { require.NoError(t, s.Warm(t.Context())) },
		"a write failed": func(s *sqlite.Store) {
			require.ErrorIs(t, s.Append(t.Context(), driver.Head{Revision: 7}, driver.Record{Revision: 8}), driver.ErrConflict)
		},
		"a claim was abandoned": func(s *sqlite.Store) {
			c, err := s.Claim(t.Context())
			require.NoError(t, err)
			c.Abandon()
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.db")
			s := open(t, path)
			head := drivertest.Install(t, s, 1)
			for range 3 {
				head = drivertest.Append(t, s, head, []byte("v"))
			}
			use(s)
			require.NoError(t, s.Close())
			wholeAt(t, path, head)
			wal, err := os.Stat(path + "-wal")
			require.NoError(t, err)
			require.Zero(t, wal.Size())
			require.NoError(t, s.Close(), "a second Close does nothing")
		})
	}
}

// TestAfterTheLastCleanEndOfSeveralProcessesACopyOfTheFileAloneIsWhole ends two
// writers and a reader in every order.
func TestAfterTheLastCleanEndOfSeveralProcessesACopyOfTheFileAloneIsWhole(t *testing.T) {
	t.Parallel()
	for _, order := range orders.Permutations([]int{0, 1, 2}) {
		path := filepath.Join(t.TempDir(), "c.db")
		var all []*player
		for _, part := range []string{"writes", "follows", "writes"} {
			all = append(all, plays(t, part, path).done())
		}
		head := func() driver.Head {
			s := open(t, path)
			defer func() { require.NoError(t, s.Close()) }()
			return drivertest.ReadHead(t, s)
		}()
		require.EqualValues(t, 4, head.Revision)
		writers := 2
		for _, i := range order {
			all[i].ends()
			if i != 1 {
				writers--
			}
			if writers == 0 { // whoever still reads
				wholeAt(t, path, head)
			}
		}
	}
}

func TestAWriterThatDiesLeavesTheWALToTheNextCleanEnd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	plays(t, "writes", path).done().dies()
	plays(t, "looks", path).done().ends()
	s := open(t, path)
	head := drivertest.ReadHead(t, s)
	require.NoError(t, s.Warm(t.Context()))
	require.NoError(t, s.Close())
	wholeAt(t, path, head)
}

func TestCloseWaitsForAReaderOfAnOldSnapshotForAtMostASecondAndSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	var logged bytes.Buffer
	s, err := sqlite.Open(path, sqlite.Config{Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	require.NoError(t, err)
	head := drivertest.Install(t, s, 1)
	head = drivertest.Append(t, s, head, nil)
	reader := open(t, path)
	require.NoError(t, reader.Log(t.Context(), 0, func(driver.Record) error {
		if s == nil {
			return nil
		}
		head = drivertest.Append(t, s, head, nil)
		require.NoError(t, s.Close())
		s = nil
		return nil
	}))
	require.Contains(t, logged.String(), "copy the two together")
	require.Regexp(t, "[0-9]+ of the [1-9][0-9]* pages in the WAL are in the file", logged.String())
	last := open(t, path)
	drivertest.SameHead(t, head, drivertest.ReadHead(t, last))
	require.NoError(t, last.Warm(t.Context()))
	require.NoError(t, last.Close())
	wholeAt(t, path, head)
}

func TestAUserWhoMayOnlyReadSeesACatalogAfterACleanEnd(t *testing.T) {
	t.Parallel()
	u, dir := service(t)
	path := folderOf(t, filepath.Join(dir, "d"), os.Geteuid(), os.Getegid(), 0o755)
	plays(t, "writes", path).done().ends()
	require.NoError(t, os.Chmod(path, 0o444))
	plays(t, "looks", path, u.as).done().ends()
}

func TestAUserWhoMayOnlyReadAndHasNoWALIsToldWhichFolderItCouldNotBeMadeIn(t *testing.T) {
	t.Parallel()
	u, dir := service(t)
	path := folderOf(t, filepath.Join(dir, "d"), os.Geteuid(), os.Getegid(), 0o755)
	plays(t, "writes", path).done().ends()
	require.NoError(t, os.Remove(path+"-wal"))
	require.NoError(t, os.Remove(path+"-shm"))
	var said bytes.Buffer
	p := plays(t, "looks", path, u.as, func(cmd *exec.Cmd) { cmd.Stderr = &said })
	require.NoError(t, p.stdin.Close())
	require.Error(t, p.cmd.Wait())
	require.Contains(t, said.String(), "access "+filepath.Dir(path)+": permission denied: give this process the right")
}
