package postgres_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/testpg"
)

// risks returns the names of what could lose a commit.
func risks(t *testing.T, dsn string) (names []string) {
	t.Helper()
	found, err := open(t, dsn).Risks(within(t, soon))
	require.NoError(t, err)
	for _, f := range found {
		require.NotEqual(t, driver.Fine, f.Grade)
		require.NotEmpty(t, f.Remedy)
		names = append(names, f.Name)
	}
	return names
}

func TestAServerThatKeepsWhatItAcknowledgesHasNoRisks(t *testing.T) {
	t.Parallel()
	require.Empty(t, risks(t, testpg.URL(t)))
}

func TestSettingsThatLoseCommitsAreRisks(t *testing.T) {
	t.Parallel()
	server := testpg.NewServer(t, testpg.Setting("fsync = off"), testpg.Setting("full_page_writes = off"))
	require.Equal(t, []string{"durability", "torn pages"}, risks(t, server.URL))
	require.Equal(t, []string{"durability"}, risks(t, withParam(t, testpg.URL(t), "synchronous_commit", "off")))
}

func TestAStandbyForWhichNoCommitWaitsIsSaidAloudAtOpen(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.primary.CaughtUp(cl.standby)
	logged, logger := captured()
	c, err := catalog.Open(t.Context(), open(t, cl.dsn), catalog.Config{Generation: 1, Logger: logger})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(logged.lines()) > 0 }, soon, often)
	require.NoError(t, c.Close())
	require.Equal(t, []string{"WARN this store could lose an acknowledged commit"}, logged.lines())
	require.Equal(t, []string{"fail-over"}, risks(t, cl.dsn))

	testpg.Exec(t, cl.primary.URL, `alter system set synchronous_standby_names = '*'`, `select pg_reload_conf()`)
	require.Eventually(t, func() bool { return len(risks(t, cl.dsn)) == 0 }, soon, often)
	require.True(t, slices.Contains(risks(t, withParam(t, cl.dsn, "synchronous_commit", "local")), "fail-over"))
}

func TestTheRisksOfAServerThatIsNotThereAreNotTold(t *testing.T) {
	t.Parallel()
	_, err := open(t, "postgres://u@127.0.0.1:1/d").Risks(within(t, soon))
	var e *driver.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "risks", e.Op)
}
