package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/reap"
)

func TestWhatAKilledReaperLeftOfAFolderIsRemovedLater(t *testing.T) {
	t.Parallel()
	f := folders{t.TempDir()}
	require.NoError(t, f.make(fence.Token{Generation: 7, Epoch: 1}))
	for _, name := range []string{".removing-g3-1700000000-ABCDEFGH", ".removing-g3-x-ABCDEFGH", ".removing-g03-1700000000-ABCDEFGH", "g03", "3", "gx"} {
		require.NoError(t, os.MkdirAll(filepath.Join(f.root, name, "data"), 0o755))
	}
	young := fmt.Sprintf("%sg3-%d-ABCDEFGH", removing, time.Now().Unix())
	require.NoError(t, os.Mkdir(filepath.Join(f.root, young), 0o755))
	r, err := reap.Pass(t.Context(), f.rest(), fence.Token{Generation: 9, Epoch: 2}, reap.Policy{Keep: reap.KeepNone})
	require.NoError(t, err)
	require.NoError(t, r.Check())
	require.Equal(t, 2, r.Listed)
	require.Equal(t, 1, r.Deleted)
	require.Equal(t, 1, r.Kept.Young, "another reaper may be at work on it")
	require.NoDirExists(t, filepath.Join(f.root, ".removing-g3-1700000000-ABCDEFGH"))
	items, err := f.source().List(t.Context())
	require.NoError(t, err)
	require.Len(t, items, 1, "and nothing that somebody else has made")
}

func TestOnlyAFolderThatIsGoneCountsAsGone(t *testing.T) {
	t.Parallel()
	f := folders{t.TempDir()}
	item := reap.Item{ID: "g7", Made: fence.Token{Generation: 7}}
	require.ErrorIs(t, f.source().Delete(t.Context(), item), reap.ErrGone)
	require.ErrorIs(t, f.rest().Delete(t.Context(), item), reap.ErrGone)
	away := folders{filepath.Join(f.root, "not mounted")}
	for _, src := range []reap.Source{away.source(), away.rest()} {
		err := src.Delete(t.Context(), item)
		require.ErrorIs(t, err, os.ErrNotExist)
		require.NotErrorIs(t, err, reap.ErrGone)
	}
}
