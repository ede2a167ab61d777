package fence_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func token(g generation.Generation, e epoch.Epoch) fence.Token {
	return fence.Token{Generation: g, Epoch: e}
}

// ascending lists tokens in their order.
func ascending() []fence.Token {
	return []fence.Token{
		{}, token(0, 1), token(0, epoch.Max), token(1, 0), token(1, 1), token(1, 255), token(1, 256), token(1, epoch.Max),
		token(2, 0), token(7, 41), token(7, 42), token(10, 1), token(256, 0), token(generation.Max, 0),
		token(generation.Max, epoch.Max),
	}
}

func TestGenerationDecidesBeforeEpoch(t *testing.T) {
	tokens := ascending()
	for i, a := range tokens {
		for j, b := range tokens {
			require.Equal(t, sign(i-j), a.Compare(b), "%v against %v", a, b)
		}
	}
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	default:
		return 0
	}
}

func TestOnlyTheZeroTokenIsZero(t *testing.T) {
	for i, tok := range ascending() {
		require.Equal(t, i == 0, tok.IsZero(), "%v", tok)
	}
}

func TestNextKeepsTheEpochGoing(t *testing.T) {
	next, err := token(7, 41).Next(9)
	require.NoError(t, err)
	require.Equal(t, token(9, 42), next)
	_, err = token(7, epoch.Max).Next(8)
	require.ErrorIs(t, err, epoch.ErrOverflow)
	_, err = token(7, 1).Next(generation.Max + 1)
	require.ErrorIs(t, err, generation.ErrOverflow)
}

func TestATokenLeavesRoomIfBothItsNumbersDo(t *testing.T) {
	require.NoError(t, token(7, 41).CheckRoom())
	require.ErrorIs(t, token(generation.Max, 41).CheckRoom(), generation.ErrNoRoom)
	require.ErrorIs(t, token(7, epoch.Max-1).CheckRoom(), epoch.ErrNoRoom)
}

// golden returns the lines of testdata/tokens.txt: text form and binary form
// of the tokens of ascending. The file is frozen: it only grows.
func golden(t testing.TB) [][2]string {
	t.Helper()
	text, err := os.ReadFile("testdata/tokens.txt")
	require.NoError(t, err)
	var lines [][2]string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		require.Len(t, fields, 2)
		lines = append(lines, [2]string{fields[0], fields[1]})
	}
	return lines
}

func TestTheFormsOfATokenAreFrozen(t *testing.T) {
	lines := golden(t)
	require.Len(t, lines, len(ascending()))
	for i, tok := range ascending() {
		require.Equal(t, lines[i][0], tok.String())
		text, err := tok.MarshalText()
		require.NoError(t, err)
		require.Equal(t, lines[i][0], string(text))
		bin, err := tok.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, lines[i][1], hex.EncodeToString(bin))
		value, err := tok.Value()
		require.NoError(t, err)
		require.Equal(t, lines[i][0], value)
		js, err := json.Marshal(tok)
		require.NoError(t, err)
		require.Equal(t, `"`+lines[i][0]+`"`, string(js))
	}
}

func TestEveryFormIsReadBack(t *testing.T) {
	for i, line := range golden(t) {
		want := ascending()[i]
		got, err := fence.Parse(line[0])
		require.NoError(t, err)
		require.Equal(t, want, got)
		for _, src := range []any{line[0], []byte(line[0])} {
			var scanned fence.Token
			require.NoError(t, scanned.Scan(src))
			require.Equal(t, want, scanned)
		}
		var fromJSON, fromBinary fence.Token
		require.NoError(t, json.Unmarshal([]byte(`"`+line[0]+`"`), &fromJSON))
		require.Equal(t, want, fromJSON)
		bin, err := hex.DecodeString(line[1])
		require.NoError(t, err)
		require.NoError(t, fromBinary.UnmarshalBinary(bin))
		require.Equal(t, want, fromBinary)
	}
}

func TestNoOtherTextIsAToken(t *testing.T) {
	for _, text := range []string{
		"", "g7", "g7.e", "g.e41", "g7e41", "e41.g7", "G7.E41", "g07.e41", "g7.e041", "g+7.e41", "g-7.e41", "g7.e-1",
		" g7.e41", "g7.e41 ", "g7.e41\n", "g7.e41.e2", "g7.41", "7.41", "g7 .e41", "g0x7.e1", "g1_0.e1", "g7.e４",
		"g9223372036854775808.e1", "g1.e9223372036854775808", "g18446744073709551616.e1", "g1.e18446744073709551616",
	} {
		got := token(7, 41)
		require.ErrorIs(t, got.UnmarshalText([]byte(text)), fence.ErrMalformed, "%q", text)
		require.ErrorIs(t, got.Scan(text), fence.ErrMalformed, "%q", text)
		require.Equal(t, token(7, 41), got, "unchanged")
	}
	for _, src := range []any{nil, int64(7), 7.5, true} {
		require.ErrorIs(t, new(fence.Token).Scan(src), fence.ErrMalformed)
	}
	require.Error(t, json.Unmarshal([]byte("7"), new(fence.Token)))
}

func TestNoOtherBytesAreAToken(t *testing.T) {
	high := bytes.Repeat([]byte{0xff}, 16)
	lowEpoch := append(make([]byte, 8), high[:8]...)
	for _, b := range [][]byte{nil, make([]byte, 15), make([]byte, 17), high, lowEpoch} {
		got := token(7, 41)
		require.ErrorIs(t, got.UnmarshalBinary(b), fence.ErrMalformed, "%x", b)
		require.Equal(t, token(7, 41), got)
	}
}

func TestANumberAboveMaxIsNotWritten(t *testing.T) {
	for tok, want := range map[fence.Token]error{
		token(generation.Max+1, 1):   generation.ErrOverflow,
		token(1, epoch.Max+1):        epoch.ErrOverflow,
		token(math.MaxUint64, 1):     generation.ErrOverflow,
		token(1, epoch.Epoch(1<<63)): epoch.ErrOverflow,
	} {
		_, err := tok.MarshalText()
		require.ErrorIs(t, err, want)
		_, err = tok.MarshalBinary()
		require.ErrorIs(t, err, want)
		_, err = tok.Value()
		require.ErrorIs(t, err, want)
		_, err = json.Marshal(tok)
		require.ErrorIs(t, err, want)
		_, err = fence.Parse(tok.String())
		require.ErrorIs(t, err, want)
	}
}

func FuzzTheBinaryFormSortsAsTokensDo(f *testing.F) {
	for _, tok := range ascending() {
		f.Add(uint64(tok.Generation), uint64(tok.Epoch), uint64(7), uint64(41))
	}
	f.Fuzz(func(t *testing.T, g1, e1, g2, e2 uint64) {
		a := token(generation.Generation(g1>>1), epoch.Epoch(e1>>1))
		b := token(generation.Generation(g2>>1), epoch.Epoch(e2>>1))
		x, err := a.MarshalBinary()
		require.NoError(t, err)
		y, err := b.MarshalBinary()
		require.NoError(t, err)
		require.Equal(t, a.Compare(b), bytes.Compare(x, y))
		require.Equal(t, -a.Compare(b), b.Compare(a))
	})
}

func FuzzParseTakesOnlyWhatStringWrites(f *testing.F) {
	for _, tok := range ascending() {
		f.Add(tok.String())
	}
	f.Add("g07.e1")
	f.Add("g1.e9223372036854775808")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := fence.Parse(text)
		if err != nil {
			require.True(t, tok.IsZero())
			return
		}
		require.Equal(t, text, tok.String())
	})
}

func TestSortedBinaryIsSortedTokens(t *testing.T) {
	var forms []string
	for _, line := range golden(t) {
		forms = append(forms, line[1])
	}
	require.True(t, slices.IsSorted(forms))
}

func TestOfATokenThatIsNoneABoundedPartIsShown(t *testing.T) {
	for _, text := range []string{strings.Repeat("g7.e41", 100_000), "g7.e" + strings.Repeat("9", 100_000), "g" + strings.Repeat("é", 100_000) + ".e1", strings.Repeat("\x00", 42)} {
		_, parsed := fence.Parse(text)
		_, given := fence.TokenOf("http orders", []string{text})
		_, twice := fence.TokenOf("http orders", []string{text, text})
		for _, err := range []error{parsed, given, twice} {
			require.ErrorIs(t, err, fence.ErrMalformed)
			require.Less(t, len(err.Error()), 700)
		}
		require.ErrorContains(t, parsed, "want 41 at most")
	}
	longest := token(generation.Max, epoch.Max)
	parsed, err := fence.Parse(longest.String())
	require.NoError(t, err)
	require.Equal(t, longest, parsed)
	require.Len(t, longest.String(), 41)
}
