package sqlite_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

func TestAFileThatIsPutBackWhileItIsInUseIsALossThatStaysFound(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	holder, err := catalog.Open(t.Context(), open(t, path), catalog.Config{Generation: 1})
	require.NoError(t, err)
	for i := range 4 {
		require.NoError(t, put(t.Context(), holder, fmt.Sprint(i), nil))
	}
	follower, err := catalog.Follow(t.Context(), open(t, path), catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, follower.Wait(t.Context(), func(h driver.Head) bool { return h.Revision == holder.Head().Revision }))
	raw(t, path, "DELETE FROM log WHERE revision > 2") // what an older copy has, in the same file
	<-holder.Done()
	<-follower.Done()
	require.ErrorIs(t, holder.Close(), catalog.ErrLostCommit)
	require.ErrorIs(t, follower.Close(), catalog.ErrLostCommit)
	losses, err := catalog.Losses(t.Context(), open(t, path))
	require.NoError(t, err)
	require.Len(t, losses, 1, "two processes have found it")
	require.Equal(t, []uint64{3, 5}, []uint64{losses[0].From, losses[0].To})
	require.Contains(t, losses[0].Place, "file ")
	for range 2 {
		_, err = catalog.Open(t.Context(), open(t, path), catalog.Config{Generation: 1})
		require.ErrorIs(t, err, catalog.ErrLossStands)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
	}
	s := open(t, path)
	_, err = catalog.Raise(t.Context(), s, catalog.Config{}, catalog.RaiseOptions{Reason: "restored", Above: losses[0].Token})
	require.NoError(t, err)
	next, err := catalog.Open(t.Context(), s, catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, next.Close())
}
