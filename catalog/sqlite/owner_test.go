package sqlite_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/exitcodes"
)

// A user of a service. If the tests don't run as root, it is the one that they
// run as, and the files are merely checked.
type user struct {
	uid, gid int
	binary   string // of the tests, where this user finds it
}

const nobody, ownGroup = 65534, 64321

// service returns a user and a folder that others may enter.
func service(t *testing.T) (u user, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "owner-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	if os.Geteuid() != 0 {
		return user{os.Geteuid(), os.Getegid(), os.Args[0]}, dir
	}
	u = user{nobody, ownGroup, filepath.Join(dir, "tests")}
	out, err := exec.CommandContext(t.Context(), "cp", os.Args[0], u.binary).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return u, dir
}

// as has a child run as the user.
func (u user) as(cmd *exec.Cmd) {
	cmd.Path, cmd.Args[0] = u.binary, u.binary
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid)}}
	}
}

func umask(bits int) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, umaskVar+"="+strconv.FormatInt(int64(bits), 8)) }
}

// ownership returns owner, group and mode of a file.
func ownership(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	stat, ok := info.Sys().(*syscall.Stat_t)
	require.True(t, ok)
	return fmt.Sprintf("%d:%d %#o", stat.Uid, stat.Gid, info.Mode().Perm())
}

func (u user) owns(mode os.FileMode) string { return fmt.Sprintf("%d:%d %#o", u.uid, u.gid, mode) }

// folder makes a folder of an owner, a group and a mode.
func folderOf(t *testing.T, path string, uid, gid int, mode os.FileMode) string {
	t.Helper()
	require.NoError(t, os.Mkdir(path, 0o700))
	require.NoError(t, os.Chown(path, uid, gid))
	require.NoError(t, os.Chmod(path, mode))
	return filepath.Join(path, "c.db")
}

func TestWhoeverRunsACommandFirstLeavesFilesThatTheServiceCanUse(t *testing.T) {
	t.Parallel()
	u, dir := service(t)
	root := os.Geteuid()
	for i, c := range []struct {
		name             string
		owner            int // of the folder; its group is the service's
		folder           os.FileMode
		umask            int
		database, beside os.FileMode
	}{
		{"the service's own folder", u.uid, 0o755, 0o022, 0o644, 0o600},
		{"a careful operator", u.uid, 0o755, 0o077, 0o600, 0o600},
		{"a folder that is closed", u.uid, 0o750, 0o022, 0o640, 0o600},
		{"a private folder", u.uid, 0o700, 0o022, 0o600, 0o600},
		{"a folder that a group shares", root, 0o770, 0o022, 0o660, 0o660},
		{"a folder that a group shares, and a careful operator", root, 0o770, 0o077, 0o660, 0o660},
		{"a folder with the set-gid bit", root, 0o770 | os.ModeSetgid, 0o077, 0o660, 0o660},
		{"a folder whose files only their owner removes", root, 0o770 | os.ModeSticky, 0o022, 0o660, 0o660},
		{"a folder for all", u.uid, 0o777 | os.ModeSticky, 0, 0o644, 0o600},
	} {
		for _, part := range []string{"notes", "claims"} {
			path := folderOf(t, filepath.Join(dir, fmt.Sprint(i, part)), c.owner, u.gid, c.folder)
			plays(t, part, path, umask(c.umask)).done().dies() // so that all files are left
			want := user{uid: c.owner, gid: u.gid}
			for name, mode := range map[string]os.FileMode{"": c.database, "-wal": c.database, "-shm": c.database, "-claim": c.beside} {
				require.Equal(t, want.owns(mode), ownership(t, path+name), "%s, %s: c.db%s", c.name, part, name)
			}
			plays(t, "writes", path, u.as).done().ends()
			// And what is missing is made anew, as behind a restore.
			plays(t, "writes", path, umask(c.umask)).done().dies()
			require.NoError(t, os.Remove(path+"-claim"))
			require.NoError(t, os.Remove(path+"-shm"))
			plays(t, "looks", path, umask(c.umask)).done().ends()
			plays(t, "claims", path, umask(c.umask)).done().dies()
			plays(t, "writes", path, u.as).done().ends()
		}
	}
}

func TestFilesBesideADatabaseAreThoseOfItsOwnerWhoeverOwnsTheFolder(t *testing.T) {
	t.Parallel()
	u, dir := service(t)
	for mode, beside := range map[os.FileMode]os.FileMode{0o600: 0o600, 0o644: 0o600, 0o660: 0o660} {
		path := folderOf(t, filepath.Join(dir, mode.String()), os.Geteuid(), os.Getegid(), 0o777)
		require.NoError(t, os.WriteFile(path, nil, 0o600)) // as somebody makes it to have the right owner
		require.NoError(t, os.Chown(path, u.uid, u.gid))
		require.NoError(t, os.Chmod(path, mode))
		for range 2 {
			plays(t, "writes", path).done().dies()
			require.Equal(t, u.owns(mode), ownership(t, path))
			require.Equal(t, u.owns(beside), ownership(t, path+"-claim"))
			plays(t, "writes", path, u.as).done().ends()
			require.NoError(t, os.Remove(path+"-claim"))
		}
	}
}

// TestNoLinkOrPipeThatSomebodyPlantedIsFollowed plants it at each name of a
// catalog, before and after the database is made.
func TestNoLinkOrPipeThatSomebodyPlantedIsFollowed(t *testing.T) {
	t.Parallel()
	plants := map[string]func(victim, at string) error{
		"a link":             func(victim, at string) error { return os.Symlink(victim, at) },
		"a link to nowhere":  func(_, at string) error { return os.Symlink(filepath.Join(filepath.Dir(at), "nowhere"), at) },
		"a pipe":             func(_, at string) error { return unix.Mkfifo(at, 0o666) },
		"a link to a device": func(_, at string) error { return os.Symlink("/dev/zero", at) },
	}
	for how, plant := range plants {
		for _, suffix := range []string{"", "-wal", "-shm", "-journal", "-claim", "-new"} {
			for _, there := range []bool{false, true} {
				if suffix == "" && there {
					continue
				}
				what := fmt.Sprintf("%s at c.db%s, database there: %v", how, suffix, there)
				path := filepath.Join(t.TempDir(), "c.db")
				if there {
					path, _ = claimed(t)
					require.NoError(t, os.RemoveAll(path+suffix))
				}
				victim := filepath.Join(t.TempDir(), "victim")
				require.NoError(t, os.WriteFile(victim, nil, 0o640))
				before := ownership(t, victim)
				require.NoError(t, plant(victim, path+suffix))
				s := open(t, path)
				_, err := catalog.Open(drivertest.Context(t), s, catalog.Config{Generation: 2})
				require.ErrorContains(t, err, "find out who put it there", what)
				require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), what)
				_, err = s.Post(t.Context(), driver.Note{Key: "k", Value: []byte("{}")})
				require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), what)
				require.Equal(t, before, ownership(t, victim), what)
				got, err := os.ReadFile(victim)
				require.NoError(t, err)
				require.Empty(t, got, what)
				_, err = os.Stat(filepath.Join(filepath.Dir(path), "nowhere"))
				require.ErrorIs(t, err, os.ErrNotExist, what)
				require.NoError(t, s.Close())
			}
		}
	}
}

func TestAFileThatWasThereBeforeKeepsItsOwnerAndMode(t *testing.T) {
	t.Parallel()
	u, dir := service(t)
	path := folderOf(t, filepath.Join(dir, "d"), u.uid, u.gid, 0o755)
	victim := filepath.Join(dir, "victim")
	require.NoError(t, os.WriteFile(victim, nil, 0o640))
	before := ownership(t, victim)
	require.NoError(t, os.Link(victim, path+"-claim"))
	s := open(t, path)
	_, err := s.Claim(t.Context())
	require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), "%v", err)
	require.Equal(t, before, ownership(t, victim))
}
