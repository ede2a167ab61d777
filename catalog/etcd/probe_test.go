package etcd_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func probed(t *testing.T, s *etcd.Store) map[string]driver.Finding {
	t.Helper()
	findings, err := s.Probe(within(t, time.Minute))
	require.NoError(t, err)
	named := map[string]driver.Finding{}
	for _, f := range findings {
		require.NotEmpty(t, f.Detail)
		require.Equal(t, f.Grade != driver.Fine, f.Remedy != "", "%v", f)
		named[f.Name] = f
	}
	return named
}

func TestAProbeWarnsOfASingleMemberAndWritesNothing(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	client := testetcd.Client(t, url)
	found := probed(t, open(t, url, etcd.Config{}))
	require.Equal(t, driver.Warning, found["quorum"].Grade)
	require.Contains(t, found["quorum"].Detail, "1 voting")
	require.Equal(t, driver.Finding{Name: "alarms", Detail: "none"}, found["alarms"])
	require.Regexp(t, `^etcd 3\..*, the database has [0-9]+ MiB`, found["size"].Detail)
	resp, err := client.Get(t.Context(), testetcd.Prefix(t, url)+"/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.Empty(t, resp.Kvs)
}

func TestAProbeOfAServerThatIsNotThereIsClassified(t *testing.T) {
	t.Parallel()
	_, err := open(t, "etcd://127.0.0.1:1/p", etcd.Config{}).Probe(within(t, 300*time.Millisecond))
	require.Equal(t, "probe", classed(t, err).Op)
}

func TestAProbeSaysWhetherEtcdForgetsWhatWasDeleted(t *testing.T) {
	t.Parallel()
	server := testetcd.NewServer(t, testetcd.Options{})
	s, client := open(t, server.URL(), etcd.Config{}), testetcd.Client(t, server.URL())
	commit(t, s, claim(t, s), 3, "x")
	require.Contains(t, probed(t, s)["history"].Detail, "keeps the history")
	compactHistory(t, client)
	require.Contains(t, probed(t, s)["history"].Detail, "has been compacted")
}

func TestASingleMemberIsARisk(t *testing.T) {
	t.Parallel()
	found, err := open(t, testetcd.URL(t), etcd.Config{}).Risks(within(t, time.Minute))
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, "quorum", found[0].Name)
	require.Contains(t, found[0].Detail, "1 voting")
}
