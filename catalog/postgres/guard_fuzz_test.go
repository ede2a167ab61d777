package postgres_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testpg"
)

// FuzzWhateverASessionGivesAsItsTokenIsThatTokenOrRefused holds the server's reading of
// a token against this library's.
func FuzzWhateverASessionGivesAsItsTokenIsThatTokenOrRefused(f *testing.F) {
	dsn := testpg.URL(f)
	s, err := postgres.Open(f.Context(), dsn, postgres.Config{})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, s.Close()) })
	live := drivertest.Install(f, s, 7).Claim.Token
	testpg.Exec(f, dsn, `create table orders (id int)`)
	require.NoError(f, s.InstallGuards(f.Context(), driver.GuardedTables{Tables: []string{"orders"}}))
	conn := testpg.Connect(f, dsn)
	for _, text := range []string{
		"", live.String(), "g7.e2", "g7.e01", "g8.e1", "G7.e1", " g7.e1", "g7.e1\n", "g7,e1", "g٧.e1", "g9223372036854775807.e9223372036854775807",
		"g9223372036854775808.e1", "g99999999999999999999999999.e1", "main", "$1", "'", `\`, "g7.e1; select 1", strings.Repeat("9", 1<<16),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return // which no setting can hold
		}
		refused := postgres.Refusal(committed(t, conn, text, `insert into orders values (1)`))
		token, err := fence.Parse(text)
		switch {
		case text == live.String():
			require.NoError(t, refused)
		case text == "":
			require.ErrorIs(t, refused, fence.ErrMissing)
		case err != nil:
			require.ErrorIs(t, refused, fence.ErrMalformed, "%q", text)
		default:
			require.ErrorIs(t, refused, fence.ErrNeverIssued, "%v", token)
		}
	})
}

// FuzzNoAnswerOfAServerBreaksTheReadingOfARefusal has a server answer anything.
func FuzzNoAnswerOfAServerBreaksTheReadingOfARefusal(f *testing.F) {
	for _, state := range []string{"TKN01", "TKN02", "TKN03", "TKN04", "TKN05", "TKN06", "TKN99", "40001", ""} {
		for _, detail := range []string{"", "{", "null", `[]`, `{"catalog":7}`, `{"catalog":"main","held":"g1.e1","current":"g2.e2","holder":{"name":"green"}}`, `{"holder":null}`} {
			f.Add(state, detail)
		}
	}
	f.Fuzz(func(t *testing.T, state, detail string) {
		err := postgres.Refusal(&pgconn.PgError{Severity: "ERROR", Code: state, Detail: detail})
		require.Equal(t, strings.HasPrefix(state, "TKN0") && len(state) == 5 && state[4] >= '1' && state[4] <= '6', err != nil, state)
		require.False(t, errors.Is(err, fence.ErrSuperseded))
		if err != nil {
			_ = err.Error()
		}
	})
}
