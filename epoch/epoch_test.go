package epoch_test

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/epoch"
)

func TestNextRaisesByOne(t *testing.T) {
	for _, e := range []epoch.Epoch{epoch.None, 1, 41, epoch.Max - 1} {
		next, err := e.Next()
		require.NoError(t, err)
		require.Equal(t, e+1, next)
	}
}

func TestNextNeverWrapsAround(t *testing.T) {
	for _, e := range []epoch.Epoch{epoch.Max, epoch.Max + 1, math.MaxUint64} {
		next, err := e.Next()
		require.ErrorIs(t, err, epoch.ErrOverflow)
		require.Equal(t, e, next)
	}
}

func TestAFreelyChosenNumberLeavesRoomForLaterClaims(t *testing.T) {
	for _, e := range []epoch.Epoch{epoch.None, 1, epoch.Max - epoch.Room} {
		require.NoError(t, e.CheckRoom())
	}
	for _, e := range []epoch.Epoch{epoch.Max - epoch.Room + 1, epoch.Max, math.MaxUint64} {
		require.ErrorIs(t, e.CheckRoom(), epoch.ErrNoRoom)
	}
}

func TestTextIsDecimal(t *testing.T) {
	require.Equal(t, "0", epoch.None.String())
	require.Equal(t, "9223372036854775807", epoch.Max.String())
}

func TestJSONIsANumberUpToMax(t *testing.T) {
	for _, e := range []epoch.Epoch{0, 1, epoch.Max} {
		text, err := json.Marshal(e)
		require.NoError(t, err)
		require.Equal(t, e.String(), string(text))
		var got epoch.Epoch
		require.NoError(t, json.Unmarshal(text, &got))
		require.Equal(t, e, got)
	}
}

func TestJSONAboveMaxIsAnOverflow(t *testing.T) {
	for _, text := range []string{"9223372036854775808", "18446744073709551615", "18446744073709551616", "99999999999999999999999"} {
		e := epoch.Epoch(7)
		require.ErrorIs(t, json.Unmarshal([]byte(text), &e), epoch.ErrOverflow, text)
		require.Equal(t, epoch.Epoch(7), e, "unchanged")
	}
}

func TestJSONOtherThanAWholeNumberIsRefused(t *testing.T) {
	for _, text := range []string{`"7"`, "-1", "7.0", "1e3", "true", "[]", "{}"} {
		var e epoch.Epoch
		err := json.Unmarshal([]byte(text), &e)
		require.Error(t, err, text)
		require.NotErrorIs(t, err, epoch.ErrOverflow, text)
	}
	e := epoch.Epoch(7)
	require.NoError(t, json.Unmarshal([]byte("null"), &e))
	require.Equal(t, epoch.Epoch(7), e)
}

func TestSQLIsABigint(t *testing.T) {
	for _, e := range []epoch.Epoch{0, 1, epoch.Max} {
		value, err := driver.DefaultParameterConverter.ConvertValue(e)
		require.NoError(t, err)
		require.Equal(t, int64(e), value)
		var got sql.Null[epoch.Epoch]
		require.NoError(t, got.Scan(value))
		require.Equal(t, e, got.V)
	}
	_, err := driver.DefaultParameterConverter.ConvertValue(epoch.Max + 1)
	require.Error(t, err)
	require.Error(t, new(sql.Null[epoch.Epoch]).Scan(int64(-1)))
}
