package generation_test

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/generation"
)

func TestNextRaisesByOne(t *testing.T) {
	for _, g := range []generation.Generation{generation.None, 1, 41, generation.Max - 1} {
		next, err := g.Next()
		require.NoError(t, err)
		require.Equal(t, g+1, next)
	}
}

func TestNextNeverWrapsAround(t *testing.T) {
	for _, g := range []generation.Generation{generation.Max, generation.Max + 1, math.MaxUint64} {
		next, err := g.Next()
		require.ErrorIs(t, err, generation.ErrOverflow)
		require.Equal(t, g, next)
	}
}

func TestAFreelyChosenNumberLeavesRoomForLaterReleases(t *testing.T) {
	for _, g := range []generation.Generation{generation.None, 1, 20261130131754, generation.Max - generation.Room} {
		require.NoError(t, g.CheckRoom())
	}
	for _, g := range []generation.Generation{generation.Max - generation.Room + 1, generation.Max, math.MaxUint64} {
		require.ErrorIs(t, g.CheckRoom(), generation.ErrNoRoom)
	}
}

func TestTextIsDecimal(t *testing.T) {
	require.Equal(t, "0", generation.None.String())
	require.Equal(t, "9223372036854775807", generation.Max.String())
}

func TestJSONIsANumberUpToMax(t *testing.T) {
	for _, g := range []generation.Generation{0, 1, generation.Max} {
		text, err := json.Marshal(g)
		require.NoError(t, err)
		require.Equal(t, g.String(), string(text))
		var got generation.Generation
		require.NoError(t, json.Unmarshal(text, &got))
		require.Equal(t, g, got)
	}
}

func TestJSONAboveMaxIsAnOverflow(t *testing.T) {
	for _, text := range []string{"9223372036854775808", "18446744073709551615", "18446744073709551616", "99999999999999999999999"} {
		g := generation.Generation(7)
		require.ErrorIs(t, json.Unmarshal([]byte(text), &g), generation.ErrOverflow, text)
		require.Equal(t, generation.Generation(7), g, "unchanged")
	}
}

func TestJSONOtherThanAWholeNumberIsRefused(t *testing.T) {
	for _, text := range []string{`"7"`, "-1", "7.0", "1e3", "true", "[]", "{}"} {
		var g generation.Generation
		err := json.Unmarshal([]byte(text), &g)
		require.Error(t, err, text)
		require.NotErrorIs(t, err, generation.ErrOverflow, text)
	}
	g := generation.Generation(7)
	require.NoError(t, json.Unmarshal([]byte("null"), &g))
	require.Equal(t, generation.Generation(7), g)
}

func TestSQLIsABigint(t *testing.T) {
	for _, g := range []generation.Generation{0, 1, generation.Max} {
		value, err := driver.DefaultParameterConverter.ConvertValue(g)
		require.NoError(t, err)
		require.Equal(t, int64(g), value)
		var got sql.Null[generation.Generation]
		require.NoError(t, got.Scan(value))
		require.Equal(t, g, got.V)
	}
	_, err := driver.DefaultParameterConverter.ConvertValue(generation.Max + 1)
	require.Error(t, err)
	require.Error(t, new(sql.Null[generation.Generation]).Scan(int64(-1)))
}
