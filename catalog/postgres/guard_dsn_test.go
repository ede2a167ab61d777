package postgres_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
)

func token() fence.Token { return fence.Token{Generation: 7, Epoch: 41} }

func TestAGuardedDSNKeepsWhatTheDSNSays(t *testing.T) {
	t.Parallel()
	const setting = "-c fencepost.token=g7.e41"
	for dsn, want := range map[string]struct{ guarded, catalog, options string }{
		"postgres://u@h/d": {"postgres://u@h/d?options=-c%20fencepost.token%3Dg7.e41", "main", setting},
		"postgresql://u:p?w@h:5433,i/d?sslmode=disable":    {"postgresql://u:p?w@h:5433,i/d?sslmode=disable&options=-c%20fencepost.token%3Dg7.e41", "main", setting},
		"postgres://u@h/d?catalog=orders":                  {"postgres://u@h/d?options=-c%20fencepost.token%3Dg7.e41", "orders", setting},
		"postgres://u@h/d?options=-c%20a.b%3D1&x.y=2":      {"postgres://u@h/d?x.y=2&options=-c%20a.b%3D1%20-c%20fencepost.token%3Dg7.e41", "main", "-c a.b=1 " + setting},
		"postgres://u@h/d?options=-c+a.b%3D1":              {"postgres://u@h/d?options=-c%20a.b%3D1%20-c%20fencepost.token%3Dg7.e41", "main", "-c a.b=1 " + setting},
		"postgres://u@h/d?%6fptions=-c%20tz%3DGMT+3":       {"postgres://u@h/d?options=-c%20tz%3DGMT%2B3%20-c%20fencepost.token%3Dg7.e41", "main", "-c tz=GMT+3 " + setting},
		"host=h dbname=d":                                  {"host='h' dbname='d' options='-c fencepost.token=g7.e41'", "main", setting},
		` host = 'a b' options='-c a.b=x\'y\\z' catalog=o`: {`host='a b' options='-c a.b=x\'y\\z -c fencepost.token=g7.e41'`, "o", `-c a.b=x'y\z ` + setting},
		`host=h password=a\ b`:                             {`host='h' password='a b' options='-c fencepost.token=g7.e41'`, "main", setting},
	} {
		guarded, catalog, err := postgres.GuardDSN(dsn, token(), "")
		require.NoError(t, err, dsn)
		require.Equal(t, want.guarded, guarded)
		require.Equal(t, want.catalog, catalog, dsn)
		cfg, err := pgx.ParseConfig(guarded)
		if !strings.Contains(dsn, "p?w") { // as libpq reads it; pgx wants it escaped
			require.NoError(t, err, dsn)
			require.Equal(t, want.options, cfg.RuntimeParams["options"], dsn)
		}
	}
	guarded, _, err := postgres.GuardDSN("postgres://h/d", token(), "-c a.b=1")
	require.NoError(t, err)
	require.Equal(t, "postgres://h/d?options=-c%20a.b%3D1%20-c%20fencepost.token%3Dg7.e41", guarded)
	guarded, _, err = postgres.GuardDSN("postgres://h/d?options=-c%20x.y%3D1", token(), "-c a.b=1")
	require.NoError(t, err)
	require.NotContains(t, guarded, "a.b", "libpq takes PGOPTIONS only where the DSN has none")
}

func TestADSNThatCantBeGuardedIsRefusedAndNotShown(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"hunter2", "", "host=h password='hunter2", "host=h 'hunter2'=x", "=hunter2", "mysql://u:hunter2@h/d", "host=h port=hunter2 password=hunter2",
		"postgres://u:hunter2@h/d?options=a&options=b", "options=a password=hunter2 options=b", "postgres://u:hunter2@h/d?catalog=NO", "password=hunter2 catalog=NO",
		"postgres://u:hunter2@h:port/d", "postgres://u:hunter2@h/d?options=%zz", "postgres://u:12#hunter2@h/d",
	} {
		guarded, _, err := postgres.GuardDSN(dsn, token(), "")
		require.Error(t, err, dsn)
		require.Empty(t, guarded)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

// What libpq itself makes of it is tried by psql in internal/lead.
func TestASessionOfAGuardedDSNGivesTheToken(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{testpg.URL(t), keywords(t, testpg.URL(t))} {
		guarded, _, err := postgres.GuardDSN(dsn, token(), "-c work_mem=1MB")
		require.NoError(t, err)
		var given, memory string
		require.NoError(t, testpg.Connect(t, guarded).QueryRow(t.Context(), "select current_setting('fencepost.token'), current_setting('work_mem')").Scan(&given, &memory))
		require.Equal(t, "g7.e41", given)
		require.Equal(t, "1MB", memory)
	}
}

func keywords(t *testing.T, dsn string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	return fmt.Sprintf("host=%s port=%d user=%s dbname='%s' sslmode=disable", cfg.Host, cfg.Port, cfg.User, cfg.Database)
}

func FuzzAGuardedDSNHoldsTheTokenOnce(f *testing.F) {
	f.Add("postgres://u@h/d?options=-c%20a%3Db", "-c x=y")
	f.Add(`host=h options='-c a=\'b'`, "")
	f.Fuzz(func(t *testing.T, dsn, options string) {
		guarded, _, err := postgres.GuardDSN(dsn, token(), options)
		if err != nil {
			return
		}
		cfg, err := pgx.ParseConfig(guarded)
		require.NoError(t, err)
		require.True(t, strings.HasSuffix(cfg.RuntimeParams["options"], "-c fencepost.token=g7.e41"), cfg.RuntimeParams["options"])
		again, _, err := postgres.GuardDSN(guarded, token(), "")
		require.NoError(t, err)
		require.Contains(t, again, "g7.e41")
	})
}
