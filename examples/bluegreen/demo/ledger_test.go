package demo

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func at(ms int) time.Time { return time.UnixMilli(int64(ms)) }

func TestThePauseIsTheLongestGapThatTouchesTheTimeAskedFor(t *testing.T) {
	for _, c := range []struct {
		name     string
		acks     []int
		from, to int
		want     int
	}{
		{"between two within", []int{0, 10, 50, 60}, 5, 100, 40},
		{"begun before", []int{0, 90, 100}, 50, 100, 90},
		{"not the gap before", []int{0, 500, 510, 520}, 505, 520, 10},
		{"not ended yet", []int{0, 10}, 5, 300, 290},
		{"ended behind", []int{0, 10, 400}, 5, 300, 10},
		{"never an acknowledgement", nil, 100, 300, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			var times []time.Time
			for _, ms := range c.acks {
				times = append(times, at(ms))
			}
			require.Equal(t, time.Duration(c.want)*time.Millisecond, longestPause(times, at(c.from), at(c.to)))
		})
	}
}

func TestOnlyAnAnswerOtherThanUnknownSaysThatNothingWasWritten(t *testing.T) {
	require.Equal(t, acknowledged, fateOf(nil))
	require.Equal(t, refused, fateOf(refusal("FENCED superseded by g2.e2")))
	require.Equal(t, refused, fateOf(refusal("READONLY not leading")))
	require.Equal(t, unknown, fateOf(refusal("UNKNOWN outcome: it may have landed")))
	require.Equal(t, unknown, fateOf(io.ErrUnexpectedEOF))
}
