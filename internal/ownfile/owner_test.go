package ownfile_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/ownfile"
)

// TestMain has a umask of its own, whoever runs the tests.
func TestMain(m *testing.M) {
	syscall.Umask(0o022)
	os.Exit(m.Run())
}

// owned returns owner and mode of a file.
func owned(t *testing.T, path string) (uid int, mode fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	stat, ok := info.Sys().(*syscall.Stat_t)
	require.True(t, ok)
	return int(stat.Uid), info.Mode().Perm()
}

func TestANewFileIsLikeTheOneThatIsThereOrLikeItsFolder(t *testing.T) {
	t.Parallel()
	service := os.Getuid()
	if service == 0 { // an operator's command is often the first
		service = 65534
	}
	for _, c := range []struct {
		there, folder fs.FileMode // of the file, 0: there is none
		file, lock    fs.FileMode
	}{
		{0, 0o755, 0o644, 0o600},
		{0, 0o750, 0o640, 0o600},
		{0, 0o700, 0o600, 0o600},
		{0, 0o770, 0o660, 0o660},
		{0o600, 0o755, 0o600, 0o600},
		{0o660, 0o755, 0o660, 0o660},
		{0o644, 0o700, 0o644, 0o600},
	} {
		dir := filepath.Join(t.TempDir(), "d")
		require.NoError(t, os.Mkdir(dir, 0o700))
		path := filepath.Join(dir, "registers")
		if c.there != 0 {
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			require.NoError(t, os.Chmod(path, c.there))
			require.NoError(t, os.Chown(path, service, -1))
		}
		require.NoError(t, os.Chmod(dir, c.folder))
		require.NoError(t, os.Chown(dir, service, -1))
		like, err := ownfile.Like(path)
		require.NoError(t, err)
		f, err := like.Create(path + "-new")
		require.NoError(t, err)
		require.NoError(t, f.Close())
		lock, err := ownfile.OpenLock(path+"-lock", like.AsLock())
		require.NoError(t, err)
		require.NoError(t, lock.Close())
		for name, want := range map[string]fs.FileMode{"-new": c.file, "-lock": c.lock} {
			uid, mode := owned(t, path+name)
			require.Equal(t, service, uid, "%s of %+v", name, c)
			require.Equal(t, want, mode, "%s of %+v", name, c)
		}
		_, err = like.Create(path + "-new")
		require.ErrorIs(t, err, ownfile.ErrPlanted, "it has come meanwhile")
	}
}

func TestNothingButARegularFileIsOpenedOrTakenForAModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	require.NoError(t, os.WriteFile(victim, nil, 0o640))
	for name, plant := range map[string]func(at string) error{
		"a link":            func(at string) error { return os.Symlink(victim, at) },
		"a link to nowhere": func(at string) error { return os.Symlink(filepath.Join(dir, "nowhere"), at) },
		"a pipe":            func(at string) error { return syscall.Mkfifo(at, 0o666) },
		"a folder":          func(at string) error { return os.Mkdir(at, 0o777) },
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, plant(path))
		_, err := ownfile.Like(path)
		require.ErrorIs(t, err, ownfile.ErrPlanted, name)
		like, err := ownfile.Like(victim)
		require.NoError(t, err)
		_, err = like.Create(path)
		require.ErrorIs(t, err, ownfile.ErrPlanted, name)
		_, err = ownfile.OpenLock(path, like.AsLock())
		require.ErrorIs(t, err, ownfile.ErrPlanted, name)
	}
	require.NoFileExists(t, filepath.Join(dir, "nowhere"))
	_, mode := owned(t, victim)
	require.Equal(t, fs.FileMode(0o640), mode)
}

func TestOfTwoProcessesThatMakeALockFileBothHaveTheFirstOnes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	f, err := ownfile.OpenLock(path, ownfile.MakingThat(func(*os.File) error {
		return os.WriteFile(path, []byte("the first one's"), 0o600) // before this one has its name
	}))
	require.NoError(t, err)
	defer f.Close()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "the first one's", string(text))
	mine, err := f.Stat()
	require.NoError(t, err)
	there, err := os.Stat(path)
	require.NoError(t, err)
	require.True(t, os.SameFile(mine, there))
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing is left over")
}

func TestALockFileThatCanGetNoNameLeavesNothingBehind(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := ownfile.OpenLock("", ownfile.MakingThat(func(*os.File) error { return nil }))
	require.Error(t, err)
	left, err := os.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, left)
}
