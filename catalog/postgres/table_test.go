package postgres

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testlists"
)

func TestEveryEntryHasItsReason(t *testing.T) { testlists.Check(t, Errors()) }

func TestTheTableHasEveryErrorOfOurOwn(t *testing.T) {
	t.Parallel()
	inside := []string{"errAbsent", "errAppeared", "errRoused", "errUnwatched"}
	ofDSN := []string{"errHiddenPassword", "errTwoOptions"} // of a mistake in a DSN, which no call of a store returns
	testlists.CheckOwn(t, "github.com/fencepost/fencepost/catalog/postgres", Errors(), slices.Concat(inside, ofDSN)...)
}

func TestTheTableHasEveryErrorOfPgx(t *testing.T) {
	t.Parallel()
	var names []string
	for pkg, path := range map[string]string{"pgx": "", "pgconn": "/pgconn", "pgproto3": "/pgproto3"} {
		source := testlists.Source(t, "github.com/jackc/pgx/v5"+path)
		names = append(names, testlists.Qualify(pkg, source.Vars("Err"))...)
		names = append(names, testlists.Qualify(pkg, source.Types())...)
	}
	require.Empty(t, testlists.Source(t, "github.com/jackc/pgx/v5/pgxpool").Vars("Err"), "a pool returns puddle's")
	require.Empty(t, testlists.Source(t, "github.com/jackc/pgx/v5/pgxpool").Types())
	pool := testlists.Source(t, "github.com/jackc/puddle/v2")
	names = append(names, testlists.Qualify("puddle", slices.Concat(pool.Vars("Err"), pool.Types()))...)
	names = append(names, testlists.Qualify("pgtype", testlists.Source(t, "github.com/jackc/pgx/v5/pgtype").Vars("Err"))...)
	elsewhere := []string{
		"pgconn.PgError", // by its SQLSTATE
		"pgx.proxyError", // the type of pgx.ErrNoRows
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(elsewhere, name) })
	require.GreaterOrEqual(t, len(names), 25)
	require.Empty(t, testlists.Missing(Errors(), names))
	require.Equal(t, []string{"pgconn.ErrNews"}, testlists.Missing(Errors(), append(names, "pgconn.ErrNews")), "one more upstream")
	for i, f := range Errors().Families {
		if f.Name != "pgx" && f.Name != "pgx around others" {
			continue
		}
		for j, e := range f.Entries {
			if e.Code == "pgconn.Timeout" {
				continue // a function
			}
			require.Contains(t, names, e.Code, "pgx has no such error any more")
			less := Errors()
			less.Families[i].Entries = slices.Delete(less.Families[i].Entries, j, j+1)
			require.Equal(t, []string{e.Code}, testlists.Missing(less, names))
		}
	}
}

func TestAnErrorWhoseTypePgxKeepsIsKnownByItsName(t *testing.T) {
	t.Parallel()
	_, err := pgproto3.NewFrontend(strings.NewReader("Z\x00\x00\x00\x06ab"), nil).Receive()
	m := errorTable.Of(fmt.Errorf("wrapped: %w", err))
	require.Equal(t, "pgproto3.invalidMessageLenErr", m.Code, "%T", err)
	require.Equal(t, exitcodes.Panic, m.Class(true).Disposition)
	require.Equal(t, driver.Unknown, m.Class(true).Outcome)
}

func TestAPoolThatItsOwnerClosedIsTheOwnersAffair(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), "host=127.0.0.1 port=1")
	require.NoError(t, err)
	pool.Close()
	_, err = pool.Acquire(t.Context())
	require.Error(t, err)
	class, _ := classify(err, notSent)
	require.Equal(t, exitcodes.None, class.Disposition, "%v", err)
	class, _ = classify(err, commitSent)
	require.Equal(t, exitcodes.None, class.Disposition)
	require.Equal(t, driver.Unknown, class.Outcome)
}

// judge checks what holds for any answer of a server.
func judge(t testing.TB, codes map[string]bool, pg *pgconn.PgError) driver.Basis {
	err := fmt.Errorf("wrapped: %w", pg)
	m := errorTable.Of(err)
	before, _ := classify(err, notSent)
	class, _ := classify(err, commitSent)
	require.Equal(t, driver.NotApplied, before.Outcome)
	standsFor, form := classOf(pg.Code)
	switch {
	case codes[pg.Code]:
		require.Equal(t, driver.Listed, m.Basis, pg.Code)
	case form && codes[standsFor], strings.HasPrefix(pg.Code, "23") && pg.SchemaName == "fencepost":
		require.NotEqual(t, driver.Unlisted, m.Basis, pg.Code)
	default:
		require.Equal(t, driver.Unlisted, m.Basis, pg.Code)
		require.Equal(t, exitcodes.Panic, class.Disposition, pg.Code)
	}
	if severity(pg) != "ERROR" || m.Basis != driver.Listed {
		require.Equal(t, driver.Unknown, class.Outcome, "%s %s", severity(pg), pg.Code)
	}
	return m.Basis
}

func listedCodes() map[string]bool {
	codes := map[string]bool{}
	for _, e := range sqlstates().Entries {
		codes[e.Code] = true
	}
	return codes
}

// garble returns a text such as a broken server might send in a field.
func garble(random *rand.Rand) string {
	b := make([]byte, random.IntN(8))
	for i := range b {
		b[i] = byte(1 + random.IntN(255)) // a field ends with a zero byte
	}
	return string(b)
}

func oneOf(random *rand.Rand, texts ...string) string { return texts[random.IntN(len(texts))] }

// response returns an answer of a server's that may never have been one.
func response(random *rand.Rand, codes []string) *pgproto3.ErrorResponse {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	code := codes[random.IntN(len(codes))]
	switch random.IntN(3) {
	case 0:
		b := []byte(code)
		b[2+random.IntN(3)] = letters[random.IntN(len(letters))]
		code = string(b)
	case 1:
		code = garble(random)
	}
	severity := oneOf(random, "ERROR", "FATAL", "PANIC", "", garble(random))
	return &pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: oneOf(random, severity, ""), Code: code, Message: garble(random),
		SchemaName: oneOf(random, "", "fencepost", "public", garble(random)), Routine: oneOf(random, "", "RevalidateCachedQuery", garble(random)),
		Detail: garble(random), Hint: garble(random), File: garble(random), ConstraintName: garble(random),
	}
}

func TestNoAnswerOfAServerReachesTheDefaultUnnoticed(t *testing.T) {
	t.Parallel()
	listed := listedCodes()
	var codes []string
	for code := range listed {
		codes = append(codes, code)
	}
	slices.Sort(codes)
	random := rand.New(rand.NewPCG(1, 2))
	count := map[driver.Basis]int{}
	refused := 0
	for range 100_000 {
		raw, err := response(random, codes).Encode(nil)
		require.NoError(t, err)
		if random.IntN(4) == 0 { // damaged on its way
			raw[random.IntN(len(raw))] = byte(random.IntN(256))
		}
		frontend := pgproto3.NewFrontend(strings.NewReader(string(raw)), nil)
		frontend.SetMaxBodyLen(1 << 16) // a damaged length asks for a gigabyte
		msg, err := frontend.Receive()
		answer, ok := msg.(*pgproto3.ErrorResponse)
		if err != nil || !ok {
			refused++
			if err != nil { // bytes that are no message: nobody may call that a refusal
				class, _ := classify(err, commitSent)
				require.Equal(t, driver.Unknown, class.Outcome, "%v", err)
			}
			continue
		}
		count[judge(t, listed, pgconn.ErrorResponseToPgError(answer))]++
	}
	require.NotZero(t, refused)
	require.NotZero(t, count[driver.Listed])
	require.NotZero(t, count[driver.ByClass])
	require.NotZero(t, count[driver.Unlisted])
}

func FuzzServersAnswer(f *testing.F) {
	listed := listedCodes()
	f.Add("ERROR", "40001", "m", "", "")
	f.Add("FATAL", "57P01", "", "", "")
	f.Add("ERROR", "23505", "m", "fencepost", "")
	f.Add("", "\x00", "", "", "RevalidateCachedQuery")
	f.Fuzz(func(t *testing.T, severity, code, message, schema, routine string) {
		judge(t, listed, &pgconn.PgError{Severity: severity, Code: code, Message: message, SchemaName: schema, Routine: routine})
	})
}
