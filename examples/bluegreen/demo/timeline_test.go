package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestATimelineIsNeverWiderThanItsPage(t *testing.T) {
	for _, length := range []time.Duration{0, time.Millisecond, 9 * time.Second, 10 * time.Second, 11 * time.Second, time.Hour} {
		s := newScale(at(0), at(0).Add(length))
		require.LessOrEqual(t, s.columns, widest, length)
		require.Positive(t, s.columns, length)
		require.Zero(t, s.column%bucket, length)
		require.Equal(t, s.columns-1, s.at(at(0).Add(2*time.Hour)), "a time behind the end")
	}
}

func TestARowShowsEachPhaseFromWhenItWasSeen(t *testing.T) {
	s := newScale(at(0), at(1000))
	row := s.phases([]sight{{at(100), "CatchingUp"}, {at(200), "ReadyToPromote"}, {at(500), seenLeader}, {at(800), seenDown}})
	require.Equal(t, " .---###  ", row)
}

func TestASparklineShadesByTheMostWrites(t *testing.T) {
	s := newScale(at(0), at(300))
	times := []time.Time{at(0), at(201), at(202), at(203), at(204), at(205), at(206), at(207), at(208), at(209), at(210)}
	row, most := s.sparkline(times)
	require.Equal(t, 10, most)
	require.Len(t, row, 3)
	require.Equal(t, byte(' '), row[1])
	require.Equal(t, shades[len(shades)-1], row[2])
	require.Less(t, strings.IndexByte(shades, row[0]), len(shades)-1)
}

func TestMarksThatFallTogetherStandSideBySide(t *testing.T) {
	s := newScale(at(0), at(500))
	require.Equal(t, " Pc", strings.TrimRight(s.events([]mark{{at(100), 'P'}, {at(110), 'c'}}), " "))
}
