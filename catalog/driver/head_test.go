package driver_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func id(b byte) driver.ID { return driver.ID(bytes.Repeat([]byte{b}, 16)) }

func firstClaim() driver.Claim {
	return driver.Claim{Token: fence.Token{Generation: 1, Epoch: 1}, ID: id(1), Revision: 1}
}

func laterClaim() driver.Claim {
	return driver.Claim{
		Token:       fence.Token{Generation: generation.Max, Epoch: epoch.Max},
		ID:          id(0xab),
		Revision:    41,
		DataVersion: 12,
		ReadableBy:  9,
		Holder: fence.Holder{
			Name: "pod-žluť-馬 \"<&>\"", Address: "10.0.0.2:8443", Build: "v1.2.3+dirty",
			Since: time.Date(2026, 3, 29, 2, 30, 0, 123456789, time.FixedZone("elsewhere", 3600)),
		},
		PriorClaim:  id(0xaa),
		PriorCommit: id(0x99),
		Reason:      "promoted by ops",
	}
}

func laterHead() driver.Head {
	return laterClaim().Head().After(driver.Record{Revision: 57, ID: id(0xcd)})
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	return bytes.TrimSuffix(text, []byte("\n"))
}

func TestTheTextOfAClaimIsFrozen(t *testing.T) {
	for name, c := range map[string]driver.Claim{"claim-first.json": firstClaim(), "claim-later.json": laterClaim()} {
		text, err := driver.MarshalClaim(c)
		require.NoError(t, err)
		require.Equal(t, string(golden(t, name)), string(text), name)
		got, err := driver.UnmarshalClaim(golden(t, name))
		require.NoError(t, err)
		c.Holder.Since = c.Holder.Since.UTC().Truncate(time.Microsecond)
		require.Equal(t, c, got, name)
	}
}

func TestTheTextOfAHeadIsFrozen(t *testing.T) {
	for name, h := range map[string]driver.Head{"head-first.json": firstClaim().Head(), "head-later.json": laterHead()} {
		text, err := driver.MarshalHead(h)
		require.NoError(t, err)
		require.Equal(t, string(golden(t, name)), string(text), name)
		got, err := driver.UnmarshalHead(golden(t, name))
		require.NoError(t, err)
		h.Claim.Holder.Since = h.Claim.Holder.Since.UTC().Truncate(time.Microsecond)
		require.Equal(t, h, got, name)
	}
}

func TestAHeadMovesWithItsRecords(t *testing.T) {
	require.True(t, driver.Head{}.IsZero())
	head := firstClaim().Head()
	require.Equal(t, driver.Head{Revision: 1, Commit: id(1), Claim: firstClaim()}, head)
	require.False(t, head.IsZero())
	next := head.After(driver.Record{Revision: 2, ID: id(2)})
	require.Equal(t, driver.Head{Revision: 2, Commit: id(2), Claim: firstClaim()}, next)
	require.EqualValues(t, 1, head.Revision)
}

// spoilt returns the golden text with old replaced, once.
func spoilt(t *testing.T, name, old, replacement string) string {
	t.Helper()
	text := string(golden(t, name))
	require.Contains(t, text, old)
	return strings.Replace(text, old, replacement, 1)
}

func TestWhatNoVersionWroteIsNoClaim(t *testing.T) {
	const name = "claim-later.json"
	for what, text := range map[string]string{
		"nothing":                   "",
		"null":                      "null",
		"an empty object":           "{}",
		"a list":                    "[]",
		"half a claim":              string(golden(t, name)[:40]),
		"an unknown field":          spoilt(t, name, `{"token"`, `{"lease":1,"token"`),
		"an unknown holder field":   spoilt(t, name, `"build"`, `"colour"`),
		"a second value":            string(golden(t, name)) + "{}",
		"a brace too many":          string(golden(t, name)) + "}",
		"a bracket too many":        string(golden(t, name)) + "]",
		"a zero generation":         spoilt(t, name, "g9223372036854775807.", "g0."),
		"a zero epoch":              spoilt(t, name, ".e9223372036854775807", ".e0"),
		"too large an epoch":        spoilt(t, name, ".e9223372036854775807", ".e9223372036854775808"),
		"a zero id":                 spoilt(t, name, id(0xab).String(), id(0).String()),
		"a short id":                spoilt(t, name, id(0xab).String(), "ab"),
		"an id in capitals":         spoilt(t, name, id(0xab).String(), strings.ToUpper(id(0xab).String())),
		"a zero revision":           spoilt(t, name, `"revision":41`, `"revision":0`),
		"a negative revision":       spoilt(t, name, `"revision":41`, `"revision":-41`),
		"no time":                   spoilt(t, name, "2026-03-29T01:30:00.123456Z", "yesterday"),
		"a time past the last year": spoilt(t, name, "2026-03-29T01:30:00.123456Z", "9999-12-31T23:59:59-23:00"),
	} {
		c, err := driver.UnmarshalClaim([]byte(text))
		require.ErrorIs(t, err, driver.ErrCorrupt, what)
		require.Equal(t, driver.Claim{}, c, what)
	}
}

func TestWhatNoVersionWroteIsNoHead(t *testing.T) {
	const name = "head-later.json"
	for what, text := range map[string]string{
		"nothing":                                "",
		"null":                                   "null",
		"an empty object":                        "{}",
		"an unknown field":                       spoilt(t, name, `{"revision"`, `{"lease":1,"revision"`),
		"a brace too many":                       string(golden(t, name)) + " }",
		"a zero token":                           spoilt(t, name, `"g9223372036854775807.e9223372036854775807"`, `"g0.e0"`),
		"no claim":                               spoilt(t, name, `"claim":{`, `"claim":null,"x":{`),
		"a zero commit":                          spoilt(t, name, id(0xcd).String(), id(0).String()),
		"a zero claim id":                        spoilt(t, name, id(0xab).String(), id(0).String()),
		"a revision below the claim's":           spoilt(t, name, `"revision":57`, `"revision":40`),
		"another commit at the claim's revision": spoilt(t, name, `"revision":57`, `"revision":41`),
		"the claim's commit further up":          spoilt(t, name, id(0xcd).String(), id(0xab).String()),
	} {
		h, err := driver.UnmarshalHead([]byte(text))
		require.ErrorIs(t, err, driver.ErrCorrupt, what)
		require.Equal(t, driver.Head{}, h, what)
	}
}

func TestAnIDIsItsHexadecimalDigits(t *testing.T) {
	var zero driver.ID
	require.True(t, zero.IsZero())
	require.Equal(t, strings.Repeat("0", 32), zero.String())
	one, other := driver.NewID(), driver.NewID()
	require.False(t, one.IsZero())
	require.NotEqual(t, one, other)
	text, err := one.MarshalText()
	require.NoError(t, err)
	require.Equal(t, one.String(), string(text))
	var got driver.ID
	require.NoError(t, got.UnmarshalText(text))
	require.Equal(t, one, got)
}

func TestNoOtherTextIsAnID(t *testing.T) {
	for _, text := range []string{"", "ab", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("g", 32), strings.Repeat("AB", 16), strings.Repeat("ab", 15) + "zz"} {
		got := id(7)
		require.Error(t, got.UnmarshalText([]byte(text)), "%q", text)
		require.Equal(t, id(7), got, "unchanged by %q", text)
	}
}

func FuzzUnmarshalClaimIsStable(f *testing.F) {
	for _, name := range []string{"claim-first.json", "claim-later.json"} {
		f.Add(golden(f, name))
	}
	f.Add([]byte("{}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := driver.UnmarshalClaim(text)
		if err != nil {
			require.ErrorIs(t, err, driver.ErrCorrupt)
			return
		}
		once, err := driver.MarshalClaim(c)
		require.NoError(t, err)
		again, err := driver.UnmarshalClaim(once)
		require.NoError(t, err)
		twice, err := driver.MarshalClaim(again)
		require.NoError(t, err)
		require.Equal(t, string(once), string(twice))
	})
}

func FuzzUnmarshalHeadIsStable(f *testing.F) {
	for _, name := range []string{"head-first.json", "head-later.json"} {
		f.Add(golden(f, name))
	}
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := driver.UnmarshalHead(text)
		if err != nil {
			require.ErrorIs(t, err, driver.ErrCorrupt)
			return
		}
		once, err := driver.MarshalHead(h)
		require.NoError(t, err)
		again, err := driver.UnmarshalHead(once)
		require.NoError(t, err)
		twice, err := driver.MarshalHead(again)
		require.NoError(t, err)
		require.Equal(t, string(once), string(twice))
	})
}
