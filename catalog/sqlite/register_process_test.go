package sqlite_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/step"
)

// The parts of children that raise the register of a file to g2.e2.
const (
	partRaises = "register: raises, and dies at a point"
	partLinked = "register: another library of SQLite is in memory"
)

// raisesRegister plays such a part.
func raisesRegister(part, path string) error {
	r, err := sqlite.OpenRegister(path, sqlite.Config{})
	if err != nil {
		return err
	}
	ctx := step.With(context.Background(), func(p step.Point) {
		if string(p) == os.Getenv(pointVar) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing returns from that
			select {}
		}
	})
	if part == partRaises {
		return r.Raise(ctx, token(2, 2), fence.Holder{})
	}
	return raisesBesideALibrary(ctx, r, path)
}

// raisesBesideALibrary has a file in memory that is named as SQLite's library is.
func raisesBesideALibrary(ctx context.Context, r *sqlite.Register, path string) error {
	library, err := os.Create(path + "-libsqlite3.so")
	if err != nil {
		return err
	}
	if err := library.Truncate(4096); err != nil {
		return err
	}
	if _, err := unix.Mmap(int(library.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE); err != nil {
		return err
	}
	if r, err = sqlite.OpenRegister(path, sqlite.Config{}); err != nil {
		return err
	}
	if err := r.Raise(ctx, token(1, 1), fence.Holder{}); err != nil {
		return err // nobody has the file open
	}
	open, err := os.Open(path)
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(open)
	for _, err := range []error{r.Prove(ctx, token(2, 2)), r.Raise(ctx, token(2, 2), fence.Holder{})} {
		if exitcodes.CodeOf(err) != exitcodes.Config {
			return errors.Join(errNotRefused, err)
		}
	}
	return nil
}

func TestAProcessThatDiesWhileItRaisesLeavesTheRegisterRaisedOrAsItWas(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"WAL", "DELETE"} {
		for _, point := range step.Raising() {
			t.Run(journal+", "+string(point), func(t *testing.T) {
				t.Parallel()
				path := appFile(t, journal)
				r := openRegister(t, path)
				require.NoError(t, r.Raise(t.Context(), token(1, 1), fence.Holder{}))
				require.Error(t, child(t, partRaises, path, pointVar+"="+string(point)).Run())
				db := appDB(t, path, "immediate")
				if point == step.RegisterRaised {
					require.ErrorIs(t, guardedBy(t, db, token(1, 1)), fence.ErrFenced)
				} else {
					require.NoError(t, guardedBy(t, db, token(1, 1)))
				}
				require.NoError(t, r.Raise(t.Context(), token(2, 2), fence.Holder{}), "a further try finds what the one before has done")
				require.ErrorIs(t, guardedBy(t, db, token(1, 1)), fence.ErrFenced)
				require.NoError(t, guardedBy(t, db, token(2, 2)))
			})
		}
	}
}

func TestAFileThatAnotherLibraryOfThisProcessMayHaveOpenIsOpenedByNoRegister(t *testing.T) {
	t.Parallel()
	out, err := child(t, partLinked, appFile(t, "DELETE")).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// TestAProcessThatIsBeingStartedKeepsNoGuardWaitingBehindARaise has a second descriptor
// of the file that a raise locks, as a child has between fork and exec.
func TestAProcessThatIsBeingStartedKeepsNoGuardWaitingBehindARaise(t *testing.T) {
	t.Parallel()
	path := appFile(t, "WAL")
	inherited := -1
	ctx := step.With(t.Context(), func(p step.Point) {
		if p != step.RegisterLocked {
			return
		}
		var want, st unix.Stat_t
		require.NoError(t, unix.Stat(path+"-claim", &want))
		for fd := range 1024 {
			if unix.Fstat(fd, &st) == nil && st.Dev == want.Dev && st.Ino == want.Ino {
				var err error
				inherited, err = unix.Dup(fd)
				require.NoError(t, err)
				return
			}
		}
	})
	require.NoError(t, openRegister(t, path).Raise(ctx, token(1, 1), fence.Holder{}))
	require.Positive(t, inherited)
	defer func() { require.NoError(t, unix.Close(inherited)) }()
	db := appDB(t, path, "immediate")
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, sqlite.Guard(t.Context(), tx, token(1, 1), sqlite.InRegister()))
	require.NoError(t, tx.Rollback())
}
