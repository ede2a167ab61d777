package sqlite_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
)

// bind mounts one file or folder at another name for the test.
func bind(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, unix.Mount(from, to, "", unix.MS_BIND, ""), "this test mounts: run it as root")
	t.Cleanup(func() { require.NoError(t, unix.Unmount(to, unix.MNT_DETACH)) })
}

func folder(t *testing.T, names ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{t.TempDir()}, names...)...)
	require.NoError(t, os.MkdirAll(path, 0o755))
	return path
}

func touch(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, nil, 0o644))
}

// refused requires that every way to use the catalog at path is refused with
// 78, that the error and the preflight say the same remedy, and that nothing is
// made beside it.
func refused(t *testing.T, path, remedy string) {
	t.Helper()
	before, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := open(t, path)
	_, head := s.Head(ctx)
	_, claim := s.Claim(ctx)
	_, post := s.Post(ctx, driver.Note{Key: "k", Value: []byte("{}")})
	_, leads := catalog.Open(ctx, s, catalog.Config{Generation: 9})
	_, follows := catalog.Follow(ctx, s, catalog.Config{})
	for name, err := range map[string]error{
		"head": head, "claim": claim, "post": post, "open": leads, "follow": follows,
	} {
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), "%s: %v", name, err)
		require.Equal(t, exitcodes.Halt, exitcodes.Of(err), name)
		require.ErrorContains(t, err, remedy, name)
	}
	report := catalog.Preflight(ctx, s, catalog.Config{Generation: 9})
	require.Equal(t, driver.Failure, report.Worst())
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(report.Refused))
	require.Contains(t, fmt.Sprint(report.Checks), remedy)
	findings, err := s.Probe(ctx)
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(findings), remedy)
	after, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	after = slices.DeleteFunc(after, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".fuse_hidden") }) // FUSE's own, of a file that was removed while open
	require.Len(t, after, len(before), "something was made")
}

// endings are those of the files beside a database.
var endings = []string{"-wal", "-shm", "-journal", "-claim"}

func TestADatabaseFileThatIsMountedByItselfIsRefused(t *testing.T) {
	t.Parallel()
	const remedy = "mount the folder that holds the file, not the file"
	host, _ := claimed(t)
	elsewhere := filepath.Join(folder(t), "catalog.db")
	touch(t, elsewhere)
	bind(t, host, elsewhere)
	refused(t, elsewhere, remedy)
	link := filepath.Join(folder(t), "link.db")
	require.NoError(t, os.Symlink(elsewhere, link))
	refused(t, link, remedy)
	drivertest.Install(t, open(t, host), 2) // which is the file's own name

	fresh, path := filepath.Join(folder(t), "new.db"), filepath.Join(folder(t), "catalog.db")
	touch(t, fresh)
	touch(t, path)
	bind(t, fresh, path) // as a container's start does, before any claim
	refused(t, path, remedy)

	for _, ending := range endings {
		path, _ := claimed(t)
		require.NoError(t, os.RemoveAll(path+ending))
		touch(t, path+ending)
		other := filepath.Join(folder(t), "other")
		touch(t, other)
		bind(t, other, path+ending)
		refused(t, path, remedy)
	}
}

func TestADatabaseFileWithHardLinksIsRefused(t *testing.T) {
	t.Parallel()
	const remedy = "remove the other names of the file"
	path, _ := claimed(t)
	second := path + ".bak"
	require.NoError(t, os.Link(path, second))
	refused(t, path, remedy)
	refused(t, second, remedy)
	require.NoError(t, os.Remove(second))
	drivertest.Install(t, open(t, path), 2)

	for _, ending := range endings {
		path, _ := claimed(t)
		require.NoError(t, os.RemoveAll(path+ending))
		touch(t, path+ending)
		require.NoError(t, os.Link(path+ending, path+".other"))
		refused(t, path, remedy)
	}
}

func TestAHardLinkThatIsMadeLaterIsNoticedByTheNextCall(t *testing.T) {
	t.Parallel()
	for _, ending := range []string{"", "-wal"} {
		path := filepath.Join(folder(t), "c.db")
		s := open(t, path)
		head := drivertest.Append(t, s, drivertest.Install(t, s, 1), nil)
		require.NoError(t, os.Link(path+ending, path+".snapshot"))
		err := s.Append(t.Context(), head, drivertest.NextRecord(head, nil))
		require.ErrorContains(t, err, "remove the other names of the file")
		require.Equal(t, driver.NotApplied, class(t, err).Outcome)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
		_, err = s.Claim(t.Context())
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
		require.NoError(t, os.Remove(path+".snapshot"))
		drivertest.Append(t, s, head, nil)
	}
}

func TestASymbolicLinkOrNoRegularFileBesideTheDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	for _, ending := range endings {
		path, _ := claimed(t)
		require.NoError(t, os.RemoveAll(path+ending))
		other := filepath.Join(folder(t), "other")
		require.NoError(t, os.Symlink(other, path+ending))
		refused(t, path, "name the file by its own path")
		require.NoError(t, os.Remove(path+ending))
		require.NoError(t, unix.Mkfifo(path+ending, 0o644))
		refused(t, path, "remove or rename what has the name")
		require.NoError(t, os.Remove(path+ending))
		require.NoError(t, os.Mkdir(path+ending, 0o755))
		refused(t, path, "a file beside the database, remove it")
	}
	path := filepath.Join(folder(t), "pipe")
	require.NoError(t, unix.Mkfifo(path, 0o644))
	refused(t, path, "remove or rename what has the name")
}

// oneCatalog requires that two paths lead to one catalog, of which there is one
// writer.
func oneCatalog(t *testing.T, first, second string) {
	t.Helper()
	blue, err := catalog.Open(t.Context(), open(t, first), catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, put(t.Context(), blue, "blue", nil))
	drivertest.SameHead(t, blue.Head(), drivertest.ReadHead(t, open(t, second)))
	green, err := catalog.Open(t.Context(), open(t, second), catalog.Config{Generation: 2})
	require.NoError(t, err)
	require.Equal(t, "g2.e2", green.Token().String())
	require.Equal(t, exitcodes.Success, exitcodes.CodeOf(put(t.Context(), blue, "stale", nil)))
	require.NoError(t, put(t.Context(), green, "green", nil))
	drivertest.SameHead(t, green.Head(), drivertest.ReadHead(t, open(t, first)))
	require.NoError(t, green.Close())
	require.Error(t, blue.Close())
}

func TestAFolderThatIsSeenUnderTwoPathsHoldsOneCatalog(t *testing.T) {
	t.Parallel()
	host, mounted := folder(t), folder(t)
	bind(t, host, mounted)
	oneCatalog(t, filepath.Join(host, "c.db"), filepath.Join(mounted, "c.db"))

	host = folder(t)
	link := filepath.Join(folder(t), "link")
	require.NoError(t, os.Symlink(host, link))
	oneCatalog(t, filepath.Join(link, "c.db"), filepath.Join(host, "c.db"))
	oneCatalog(t, filepath.Join(host, "d.db"), filepath.Join("/proc/self/root", link, "d.db"))
}

func TestALinkToAFileThatIsNotThereYetIsRefusedAndOneToACatalogLeadsToIt(t *testing.T) {
	root := folder(t)
	require.NoError(t, os.MkdirAll(filepath.Join(root, "data", "deep"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(root, "links"), 0o755))
	require.NoError(t, os.Symlink(filepath.Join(root, "data", "deep"), filepath.Join(root, "links", "deep")))
	for name, target := range map[string]string{
		"absolute.db": filepath.Join(root, "data", "absolute.db"),
		"relative.db": "../data/relative.db",
		"up.db":       "deep/../up.db", // which is in data: deep is a link
		"chain1.db":   "chain2.db",
		"chain2.db":   "../data/chain.db",
	} {
		require.NoError(t, os.Symlink(target, filepath.Join(root, "links", name)))
	}
	for link, real := range map[string]string{"absolute.db": "absolute.db", "relative.db": "relative.db", "up.db": "up.db", "chain1.db": "chain.db"} {
		from, to := filepath.Join(root, "links", link), filepath.Join(root, "data", real)
		refused(t, from, "name the file by its own path")
		require.NoFileExists(t, to)
		_, err := open(t, to).Post(t.Context(), driver.Note{Key: "k", Value: []byte("{}")})
		require.NoError(t, err)
		require.Equal(t, "sqlite:"+to, open(t, from).String())
		oneCatalog(t, from, to)
		require.FileExists(t, to+"-claim")
		require.NoFileExists(t, from+"-claim")
	}
	t.Chdir(filepath.Join(root, "links"))
	require.Equal(t, "sqlite:"+filepath.Join(root, "data", "asked.db"), open(t, "deep/../asked.db").String())
}

func TestAPathThatLeadsToAFileByNoNameOfItsOwnIsRefused(t *testing.T) {
	t.Parallel()
	path, _ := claimed(t)
	require.NoError(t, os.Rename(path, path+".moved")) // -wal, -shm and all are gone with the last close
	f, err := os.Open(path + ".moved")
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	named := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	require.Equal(t, "sqlite:"+path+".moved", open(t, named).String(), "it has a name")
	require.NoError(t, os.Remove(path+".moved"))
	for _, asked := range []string{named, fmt.Sprintf("/dev/fd/%d", f.Fd())} {
		_, err = sqlite.Open(asked, sqlite.Config{})
		require.ErrorContains(t, err, "name the file by its own path")
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	}

	loop := filepath.Join(folder(t), "loop.db")
	require.NoError(t, os.Symlink(loop, loop))
	_, err = sqlite.Open(loop, sqlite.Config{})
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))

	later := filepath.Join(folder(t), "later.db")
	s := open(t, later)
	other, _ := claimed(t)
	require.NoError(t, os.Symlink(other, later)) // since the store was opened
	_, err = s.Head(t.Context())
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	_, err = s.Claim(t.Context())
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
}

func TestOnFUSETheCatalogIsRefusedUnlessItIsTrustedAndThenItIsARisk(t *testing.T) {
	t.Parallel()
	host, mounted := folder(t), folder(t)
	out, err := exec.CommandContext(t.Context(), "bindfs", host, mounted).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { require.NoError(t, unix.Unmount(mounted, unix.MNT_DETACH)) })
	path := filepath.Join(mounted, "c.db")
	const remedy = "put the file on a local disk (ext4, xfs, btrfs, zfs, f2fs, apfs), or the catalog into PostgreSQL or etcd; " +
		"if all that can see the file share its locks and mapped memory, add ?filesystem=trusted to the URL"
	refused(t, path, remedy)
	drivertest.Install(t, open(t, filepath.Join(host, "c.db")), 1)
	refused(t, path, remedy)

	trusting, err := sqlite.Open(path, sqlite.Config{TrustFileSystem: true})
	require.NoError(t, err)
	drivertest.ReadHead(t, trusting)
	risks, err := trusting.Risks(drivertest.Context(t))
	require.NoError(t, err)
	require.Len(t, risks, 1)
	require.Equal(t, "file system", risks[0].Name)
	require.Equal(t, driver.Warning, risks[0].Grade)
	require.Contains(t, risks[0].Detail, "FUSE")
	require.Equal(t, risks[0], probed(t, trusting, "file system"))
	require.NoError(t, trusting.Close())
}

func TestACatalogInALowerLayerOfAnOverlayIsUsedAndItsHolderGoesOn(t *testing.T) {
	t.Parallel()
	lower, upper, merged := mount(t, "8m"), mount(t, "8m"), folder(t)
	image := open(t, filepath.Join(lower, "c.db"))
	drivertest.Install(t, image, 1)
	require.NoError(t, image.Close())
	for _, dir := range []string{"upper", "work"} {
		require.NoError(t, os.Mkdir(filepath.Join(upper, dir), 0o755))
	}
	options := fmt.Sprintf("xino=off,lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, upper, upper)
	require.NoError(t, unix.Mount("overlay", merged, "overlay", 0, options))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(merged, unix.MNT_DETACH)) })

	path := filepath.Join(merged, "c.db")
	s := open(t, path)
	require.Equal(t, "g1.e1", drivertest.ReadHead(t, s).Claim.Token.String()) // in the lower layer still
	head := drivertest.Install(t, s, 1)                                       // in the upper one from now on
	head = drivertest.Append(t, s, head, nil)
	drivertest.SameHead(t, head, drivertest.ReadHead(t, s))
	drivertest.SameHead(t, head, drivertest.ReadHead(t, open(t, path)))
}

func TestAFileThatWasRemovedOrReplacedUnderItsHolderEndsItAndNoCommitIsAcknowledged(t *testing.T) {
	t.Parallel()
	for _, ending := range []string{"", "-wal", "-shm"} {
		for name, change := range map[string]func(string) error{
			"removed": os.Remove,
			"renamed": func(name string) error { return os.Rename(name, name+".old") },
			"replaced": func(name string) error {
				if err := os.Rename(name, name+".old"); err != nil {
					return err
				}
				return os.WriteFile(name, nil, 0o644)
			},
		} {
			path, _ := claimed(t)
			s := open(t, path)
			holder, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
			require.NoError(t, err)
			require.NoError(t, put(t.Context(), holder, "k", nil))
			head := drivertest.ReadHead(t, s)
			require.NoError(t, change(path+ending))
			what := fmt.Sprintf("%s %s", ending, name)
			for range 3 { // by whichever connection
				_, err = s.Head(t.Context())
				require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(err), what)
			}
			err = s.Append(t.Context(), head, drivertest.NextRecord(head, nil))
			require.ErrorContains(t, err, "find out which file is the right one", what)
			require.Equal(t, driver.NotApplied, class(t, err).Outcome, what)
			err = put(t.Context(), holder, "stale", nil)
			require.Equal(t, exitcodes.PanicExit, exitcodes.CodeOf(err), what)
			require.Error(t, holder.Confirm(t.Context()), what)
			require.Error(t, holder.Close())
		}
	}
}

func TestACommitIntoAFileThatLosesItsNameMeanwhileIsOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{
		"CREATE TRIGGER late AFTER INSERT ON log BEGIN SELECT rename_for_test('%s-wal'); END",
		"CREATE TRIGGER late AFTER INSERT ON board BEGIN SELECT rename_for_test('%s-wal'); END",
	} {
		path, head := claimed(t)
		raw(t, path, fmt.Sprintf(statement, path))
		s := open(t, path)
		var err error
		if strings.Contains(statement, "board") {
			_, err = s.Post(t.Context(), driver.Note{Key: "k", Value: []byte("{}")})
		} else {
			err = s.Append(t.Context(), head, drivertest.NextRecord(head, nil))
		}
		require.ErrorContains(t, err, "no longer has its name")
		require.Equal(t, driver.Unknown, class(t, err).Outcome)
		require.Equal(t, exitcodes.Panic, exitcodes.Of(err))
		for range 2 { // the file is not opened anew
			_, err = s.Claim(t.Context())
			require.ErrorContains(t, err, "as an earlier call has found")
			require.ErrorContains(t, s.Log(t.Context(), 0, func(driver.Record) error { return nil }), "as an earlier call has found")
		}
	}
}
