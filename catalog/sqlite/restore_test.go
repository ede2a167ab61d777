package sqlite_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/generation"
)

// backups are the ways in which a backup of a running catalog is made.
var backups = map[string]func(t *testing.T, path, backup string){
	"VACUUM INTO": func(t *testing.T, path, backup string) { raw(t, path, "VACUUM INTO '"+backup+"'") },
	"a checkpoint and a copy": func(t *testing.T, path, backup string) {
		raw(t, path, "PRAGMA wal_checkpoint(TRUNCATE)")
		require.NoError(t, exec.CommandContext(t.Context(), "cp", path, backup).Run())
	},
}

// TestABackupThatWasCopiedBesideAnOldWALIsFoundOutByRestored also has a WAL that
// holds no more than the last commits.
func TestABackupThatWasCopiedBesideAnOldWALIsFoundOutByRestored(t *testing.T) {
	t.Parallel()
	for how, backUp := range backups {
		for _, partial := range []bool{false, true} {
			path := filepath.Join(t.TempDir(), "c.db")
			backup := filepath.Join(t.TempDir(), "backup.db")
			fill := func(g generation.Generation, n int) *catalog.Catalog {
				c, err := catalog.Open(t.Context(), open(t, path), catalog.Config{Generation: g})
				require.NoError(t, err)
				for i := range n {
					require.NoError(t, put(t.Context(), c, string(rune('a'+i%26)), make([]byte, 200)))
				}
				return c
			}
			first := fill(1, 40)
			backUp(t, path, backup)
			second := fill(2, 60)
			if partial {
				raw(t, path, "PRAGMA wal_checkpoint(TRUNCATE)")
				require.NoError(t, put(t.Context(), second, "newest", nil))
			}
			crashed := filepath.Join(t.TempDir(), "c.db")
			require.NoError(t, exec.CommandContext(t.Context(), "cp", path+"-wal", crashed+"-wal").Run())
			require.NoError(t, exec.CommandContext(t.Context(), "cp", backup, crashed).Run())

			raise := func() error {
				s := open(t, crashed)
				_, err := catalog.Raise(t.Context(), s, catalog.Config{},
					catalog.RaiseOptions{Reason: "restored", Above: second.Token()})
				require.NoError(t, s.Close())
				return err
			}
			err := raise()
			require.Error(t, err, "%s, partial %v", how, partial)
			require.ErrorContains(t, err, "-wal", "%s, partial %v", how, partial)
			require.Contains(t, []exitcodes.Code{exitcodes.Config, exitcodes.PanicExit}, exitcodes.CodeOf(err))
			t.Log(how, partial, err)

			for _, suffix := range []string{"-wal", "-shm"} {
				if err := os.Remove(crashed + suffix); !errors.Is(err, fs.ErrNotExist) {
					require.NoError(t, err)
				}
			}
			require.NoError(t, exec.CommandContext(t.Context(), "cp", backup, crashed).Run())
			require.NoError(t, raise())
			third, err := catalog.Open(t.Context(), open(t, crashed), catalog.Config{Generation: 3})
			require.NoError(t, err)
			require.Equal(t, "g3.e4", third.Token().String())
			require.NoError(t, third.Close())
			require.NoError(t, second.Close())
			require.Error(t, first.Close())
		}
	}
}
