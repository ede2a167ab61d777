package testpg_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/internal/testpg"
)

func TestEveryDatabaseIsFreshAndGoneAtTheEndOfItsTest(t *testing.T) {
	t.Parallel()
	var dsn string
	t.Run("first", func(t *testing.T) {
		dsn = testpg.URL(t)
		testpg.Exec(t, dsn, `create table here ()`)
		require.NotEqual(t, dsn, testpg.URL(t))
	})
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	var n int
	require.NoError(t, testpg.Connect(t, testpg.URL(t)).QueryRow(t.Context(),
		`select count(*) from pg_database where datname = $1`, u.Path[1:]).Scan(&n))
	require.Zero(t, n)
}

func TestAPrivateServerKeepsItsPortAndItsSettings(t *testing.T) {
	t.Parallel()
	s := testpg.NewServer(t, testpg.Setting("work_mem = '7MB'"))
	before := s.URL
	s.Stop()
	s.Stop()
	s.Start()
	require.Equal(t, before, s.URL)
	conn := testpg.Connect(t, s.URL)
	for name, want := range map[string]string{"work_mem": "7MB", "fsync": "on", "synchronous_commit": "on", "listen_addresses": "127.0.0.1"} {
		var got string
		require.NoError(t, conn.QueryRow(t.Context(), `select current_setting($1)`, name).Scan(&got))
		require.Equal(t, want, got, name)
	}
}

func TestAPrivateServerIsOfTheSharedServersVersion(t *testing.T) {
	t.Parallel()
	var versions []string
	for _, server := range []string{testpg.URL(t), testpg.NewServer(t).URL} {
		var version string
		require.NoError(t, testpg.Connect(t, server).QueryRow(t.Context(), `select version()`).Scan(&version))
		versions = append(versions, version)
	}
	require.Equal(t, versions[0], versions[1])
}

func TestAStandbyFollowsAndCanBePromoted(t *testing.T) {
	t.Parallel()
	primary := testpg.NewServer(t)
	standby := primary.Standby(t)
	testpg.Exec(t, primary.URL, `create table here ()`)
	conn := testpg.Connect(t, standby.URL)
	require.Eventually(t, func() bool {
		var there bool
		err := conn.QueryRow(t.Context(), `select pg_is_in_recovery() and to_regclass('here') is not null`).Scan(&there)
		return err == nil && there
	}, time.Minute, 5*time.Millisecond)
	standby.Promote()
	testpg.Exec(t, standby.URL, `drop table here`)
}
