package fence_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// troubled returns a gate whose register of orders is g7.e41, and its catalog, which
// has g8.e42.
func troubled(t *testing.T) (g *fence.Gate, path string, h *head) {
	t.Helper()
	path, h = filepath.Join(t.TempDir(), "registers"), headAt(token(7, 41))
	g = openGate(t, path, h)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	admit(t, g, "orders", token(7, 41)).Release()
	h.claim(token(8, 42))
	return g, path, h
}

func TestWhatHappensToTheFileWhileItIsOpenLowersNoRegister(t *testing.T) {
	t.Parallel()
	for what, spoil := range map[string]func(path string) error{
		"deleted":   os.Remove,
		"truncated": func(path string) error { return os.Truncate(path, 0) },
		"replaced by a backup": func(path string) error {
			return os.WriteFile(path, []byte(`{"format":"fencepost gate 1","registers":{"orders":{"token":"g1.e1"}}}`), 0o600)
		},
		"read-only": func(path string) error { return os.Chmod(path, 0o400) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			g, path, h := troubled(t)
			admit(t, g, "orders", token(8, 42)).Release()
			require.NoError(t, spoil(path))
			require.ErrorIs(t, refused(t, g, "orders", token(7, 41)), fence.ErrFenced)
			admit(t, g, "stock", token(8, 42)).Release() // which saves all registers
			require.NoError(t, g.Close())
			again := openGate(t, path, h)
			defer func() { require.NoError(t, again.Close()) }()
			require.Len(t, again.Registers(), 2)
			require.ErrorIs(t, refused(t, again, "orders", token(7, 41)), fence.ErrFenced)
		})
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestNoRegisterRisesWhereItCanNotBeSaved(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ spoil, mend func(path string) error }{
		"a folder in its place": {
			func(path string) error {
				return firstError(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700))
			}, os.RemoveAll,
		},
		"a link in its place": {
			func(path string) error { return firstError(os.Remove(path), os.Symlink(path+" elsewhere", path)) }, os.Remove,
		},
		"a folder in the next one's place": {
			func(path string) error { return os.MkdirAll(filepath.Join(path+"-new", "x"), 0o700) },
			func(path string) error { return os.RemoveAll(path + "-new") },
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			g, path, h := troubled(t)
			require.NoError(t, c.spoil(path))
			for range 2 {
				err := refused(t, g, "orders", token(8, 42))
				require.ErrorIs(t, err, fence.ErrNotSaved)
				require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
				require.Equal(t, token(7, 41), g.Registers()[0].Token)
				require.NoFileExists(t, path+" elsewhere")
			}
			require.NoError(t, c.mend(path))
			admit(t, g, "orders", token(8, 42)).Release()
			require.NoError(t, g.Close())
			again := openGate(t, path, h)
			require.Equal(t, token(8, 42), again.Registers()[0].Token)
			require.NoError(t, again.Close())
		})
	}
}

func TestAProcessWhoseLockFileIsGoneRaisesNoRegister(t *testing.T) {
	t.Parallel()
	for what, spoil := range map[string]func(path string) error{
		"deleted": os.Remove,
		"replaced": func(path string) error {
			return firstError(os.Rename(path, path+"-old"), os.WriteFile(path, nil, 0o600))
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			g, path, h := troubled(t)
			require.NoError(t, spoil(path+"-lock"))
			other := openGate(t, path, h) // the lock keeps it out no longer
			defer func() { require.NoError(t, other.Close()) }()
			admit(t, other, "orders", token(8, 42)).Release()
			err := refused(t, g, "orders", token(8, 42))
			require.ErrorIs(t, err, fence.ErrNotSaved)
			require.ErrorIs(t, err, fence.ErrGateInUse)
			require.ErrorContains(t, err, "restart this process")
			require.ErrorIs(t, g.Reset(t.Context(), "orders"), fence.ErrNotSaved)
		})
	}
}

func TestAFileOfTwoNamesIsRefused(t *testing.T) {
	t.Parallel()
	g, path, h := troubled(t)
	require.NoError(t, os.Link(path, path+" too")) // each name has a lock of its own
	_, err := fence.OpenGate(path+" too", fence.GateConfig{Newest: h.newest})
	require.ErrorIs(t, err, fence.ErrGateFile)
	require.ErrorContains(t, err, "2 names")
	admit(t, g, "orders", token(8, 42)).Release()
}

func TestADiskThatIsFullIsNoRegisterAndItsEndIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"), "this test mounts a small file system: run it as root")
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	path, h := filepath.Join(dir, "registers"), headAt(token(7, 41))
	g := openGate(t, path, h)
	defer func() { require.NoError(t, g.Close()) }()
	admit(t, g, "orders", token(7, 41)).Release()
	filler, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 512))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, filler.Close())
	h.claim(token(8, 42))
	err = refused(t, g, "orders", token(8, 42))
	require.ErrorIs(t, err, fence.ErrNotSaved)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoFileExists(t, path+"-new", "what was begun is removed")
	admit(t, g, "orders", token(7, 41)).Release() // nobody has been admitted under the newer one
	require.NoError(t, os.Remove(filler.Name()))
	admit(t, g, "orders", token(8, 42)).Release()
}

// An older copy of the file would let an older holder in: its token equals the
// register, which is not verified.
func TestNobodyIsToldToPutABackupInTheFilesPlace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registers")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	for _, cfg := range []fence.GateConfig{{Newest: headAt(token(8, 42)).newest}, {Signed: verifier(t, publicKey(1))}} {
		_, err := fence.OpenGate(path, cfg)
		require.ErrorIs(t, err, fence.ErrGateFile)
		require.NotContains(t, err.Error(), "backup")
		require.ErrorContains(t, err, "while no process has it open")
		require.Equal(t, cfg.Signed != nil, strings.Contains(err.Error(), "or older holders are gone"))
	}
}
