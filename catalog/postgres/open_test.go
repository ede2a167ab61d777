package postgres_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpg"
)

const secret = "s3cr3t-Pa55"

func TestOpenNeedsNoServer(t *testing.T) {
	t.Parallel()
	s, err := postgres.Open(t.Context(), "postgres://u:"+secret+"@127.0.0.1:1/app?catalog=jobs&sslmode=disable", postgres.Config{})
	require.NoError(t, err)
	require.Equal(t, "postgres://127.0.0.1:1/app?catalog=jobs", s.String())
	_, err = s.Head(within(t, soon))
	e := fails(t, err, exitcodes.Retry, driver.NotApplied)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", e, e, e.Error()), secret)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, err = s.Head(within(t, soon))
	fails(t, err, exitcodes.None, driver.NotApplied)
}

func TestTheNameOfAStoreHasEveryHostOnce(t *testing.T) {
	t.Parallel()
	for hosts, want := range map[string]string{
		"a:1":                 "a:1",
		"a:1,b:2":             "a:1,b:2",
		"ab:1,b:1":            "ab:1,b:1", // the one's text ends the other's
		"a:1,a:2":             "a:1,a:2",
		"127.0.0.1:1,[::1]:1": "127.0.0.1:1,[::1]:1",
	} {
		for _, mode := range []string{"disable", "prefer"} { // the latter tries each host twice
			s, err := postgres.Open(t.Context(), "postgres://u@"+hosts+"/app?sslmode="+mode, postgres.Config{})
			require.NoError(t, err)
			require.Equal(t, "postgres://"+want+"/app?catalog=main", s.String())
			require.NoError(t, s.Close())
		}
	}
}

func TestOpenNamesEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	_, err := postgres.Open(t.Context(), "postgres://h/db?catalog=NO", postgres.Config{MaxConns: -1, ClaimIdle: -time.Second})
	e := fails(t, err, exitcodes.Halt, driver.NotApplied)
	require.Equal(t, exitcodes.Config, e.ExitCode())
	require.ErrorContains(t, err, "MaxConns")
	require.ErrorContains(t, err, "ClaimIdle")
	require.ErrorContains(t, err, `"NO"`)
}

func TestSeveralHostsAreOneStore(t *testing.T) {
	t.Parallel()
	s := open(t, "postgres://db1:5432,db2:5433/app?target_session_attrs=read-write&sslmode=disable")
	require.Equal(t, "postgres://db1:5432,db2:5433/app?catalog=main", s.String())
}

func TestNoErrorOfOpenHoldsAnyPartOfThePassword(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://u:" + secret + "@h:notaport/db",
		"postgres://u:" + secret + "@h:5432/db?sslmode=nonsense",
		"postgres://u:" + secret + "@h:5432/db?connect_timeout=x&password=" + secret,
		"postgres://h/db?password=" + secret + "&sslmode=nonsense",
		"postgres://h/db?sslpassword=" + secret + "&sslcert=/nowhere&sslkey=/nowhere",
		"postgres://u:pa/" + secret + "@h:5432/db?sslmode=nonsense",
		"postgres://u:pa?" + secret + "@h:5432/db?sslmode=nonsense",
		"postgres://u:pa@" + secret + "@h:5432:x/db",
		"postgres://u:" + secret + "%zz@h:5432/db",
		"postgres://u:" + secret + "@[::1/db",
		"user=u password=" + secret + " host=h",
		"mysql://u:" + secret + "@h/db",
		"postgres://u:" + secret + "@h/db?catalog=%zz",
		"postgres://u:" + secret + "@h/db?catalog=UPPER",
		"postgres://u:" + secret + "@h/db?pool_max_conns=none",
		"postgres://u:" + url.QueryEscape(secret+" &?/") + "@h/db?sslmode=nonsense",
		"postgres://u:" + secret + "@h:1,:x:2/db?sslmode=a",
		"postgres://u:2024/" + secret + "@h:5432/db",
		"postgres://u:2024#" + secret + "@h:5432/db",
		"postgres://u:2024/x?" + secret + "@h:5432/db",
		"postgres://u:2024/x#" + secret + "@h:5432/db?catalog=jobs",
	} {
		t.Run(dsn, func(t *testing.T) {
			_, err := postgres.Open(t.Context(), dsn, postgres.Config{})
			require.Error(t, err)
			for e := err; e != nil; e = unwrap(e) {
				require.NotContains(t, fmt.Sprintf("%v %+v %#v", e, e, e), secret)
			}
			fails(t, err, exitcodes.Halt, driver.NotApplied)
		})
	}
}

func TestAPasswordMayHoldAQuestionMark(t *testing.T) {
	t.Parallel()
	s := open(t, "postgres://u:"+secret+"?catalog=pass@h:5432/db?catalog=jobs")
	require.Equal(t, "postgres://h:5432/db?catalog=jobs", s.String())
}

func unwrap(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return nil
}

func TestAWrongPasswordHaltsForAnOperator(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	role := "r" + driver.NewID().String()
	testpg.Exec(t, dsn, "create role "+role+" login password 'right'")
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop role "+role) })
	wrong := testpg.With(t, dsn, func(u *url.URL) { u.User = url.UserPassword(role, secret) })
	s := open(t, wrong)
	_, err := s.Head(within(t, soon))
	e := fails(t, err, exitcodes.Halt, driver.NotApplied)
	require.Equal(t, exitcodes.Config, e.ExitCode())
	require.NotContains(t, err.Error(), secret)
	require.NotEmpty(t, e.Remedy)
}

func TestTheRightPasswordMayComeFromTheEnvironment(t *testing.T) {
	dsn := testpg.URL(t)
	role := "r" + driver.NewID().String()
	testpg.Exec(t, dsn, "create role "+role+" login password '"+secret+"'")
	t.Cleanup(func() { testpg.Exec(t, dsn, "drop role "+role) })
	t.Setenv("PGPASSWORD", secret)
	s := open(t, testpg.With(t, dsn, func(u *url.URL) { u.User = url.User(role) }))
	_, err := s.Head(within(t, soon))
	require.NoError(t, err)
	_, err = tryClaim(within(t, soon), s)
	e := fails(t, err, exitcodes.Halt, driver.NotApplied)
	require.Equal(t, exitcodes.Config, e.ExitCode())
	require.Contains(t, e.Remedy, "grant", "a role without rights on the database is told so")
	require.NotContains(t, err.Error(), secret)
}

func TestAMissingDatabaseHaltsForAnOperator(t *testing.T) {
	t.Parallel()
	s := open(t, testpg.With(t, testpg.URL(t), func(u *url.URL) { u.Path = "/nowhere" }))
	_, err := s.Head(within(t, soon))
	e := fails(t, err, exitcodes.Halt, driver.NotApplied)
	require.Equal(t, exitcodes.Config, e.ExitCode())
	require.ErrorContains(t, err, "nowhere")
}

func TestAServerWithoutTLSHaltsForAnOperator(t *testing.T) {
	t.Parallel()
	s := open(t, withParam(t, testpg.URL(t), "sslmode", "require"))
	_, err := s.Head(within(t, soon))
	e := fails(t, err, exitcodes.Halt, driver.NotApplied)
	require.Equal(t, exitcodes.Config, e.ExitCode())
	require.Contains(t, e.Remedy, "sslmode")
}

func TestAPoolOfTheCallersIsUsedAndStaysOpen(t *testing.T) {
	t.Parallel()
	dsn := testpg.URL(t)
	config, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	config.ConnConfig.RuntimeParams["application_name"] = "callers"
	postgres.Prepare(config)
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	defer pool.Close()
	s, err := postgres.Open(t.Context(), "postgres:///?catalog=other", postgres.Config{Pool: pool})
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(s.String(), "?catalog=other"), s.String())
	claim(t, s)
	require.Positive(t, pool.Stat().AcquireCount())
	require.NoError(t, s.Close())
	require.NoError(t, pool.Ping(t.Context()))
}

func TestAPoolThatWasNotPreparedIsRefused(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), testpg.URL(t))
	require.NoError(t, err)
	defer pool.Close()
	s, err := postgres.Open(t.Context(), "postgres:///", postgres.Config{Pool: pool})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	_, err = tryClaim(within(t, soon), s)
	e := fails(t, err, exitcodes.Halt, driver.NotApplied)
	require.Equal(t, exitcodes.Config, e.ExitCode())
	require.Contains(t, e.Remedy, "postgres.Prepare")
}
