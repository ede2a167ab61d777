package etcd_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func TestACatalogThatIsDeletedUnderAProcessIsALossThatRestoredEnds(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	client, cfg := testetcd.Client(t, url), catalog.Config{Generation: 3}
	c, err := catalog.Open(t.Context(), open(t, url, etcd.Config{}), cfg)
	require.NoError(t, err)
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error { return catalog.Bytes("c").Set(tx, "k", nil) }))
	_, err = client.Delete(t.Context(), testetcd.Prefix(t, url)+"/", clientv3.WithPrefix())
	require.NoError(t, err)
	select {
	case <-c.Done():
	case <-time.After(time.Minute):
		require.Fail(t, "it goes on")
	}
	require.ErrorIs(t, c.Close(), catalog.ErrLostCommit)
	s := open(t, url, etcd.Config{})
	_, err = catalog.Open(t.Context(), s, cfg)
	require.ErrorIs(t, err, catalog.ErrLossStands)
	claim, err := catalog.Raise(t.Context(), s, catalog.Config{}, catalog.RaiseOptions{Reason: "emptied by mistake", Above: c.Token()})
	require.NoError(t, err)
	require.Equal(t, "g3.e2", claim.Token.String())
	next, err := catalog.Open(t.Context(), s, cfg)
	require.NoError(t, err)
	require.NoError(t, next.Close())
}
