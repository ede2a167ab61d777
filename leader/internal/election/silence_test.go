package election

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func TestSilenceIsCountedBetweenLooksThatCouldRead(t *testing.T) {
	t.Parallel()
	const most = time.Second
	one, two, at := source{claim: driver.NewID()}, source{claim: driver.NewID()}, time.Duration(0)
	var s silence
	look := func(after time.Duration, of source, seq uint64) time.Duration {
		at += after
		return s.observe(Board{Sent: at, Answered: at}, of, seq, most)
	}
	require.Zero(t, look(0, one, 0))
	require.Equal(t, 700*time.Millisecond, look(700*time.Millisecond, one, 0))
	require.Equal(t, 1700*time.Millisecond, look(time.Hour, one, 0), "a process that was stopped")
	require.Zero(t, look(most, one, 1), "a sign of life")
	require.Equal(t, most, look(most, one, 1))
	require.Equal(t, 2*most, look(most, one, 1))
	s.blind(at)
	require.Equal(t, 2*most, look(most, one, 1), "the look before could not read")
	require.Equal(t, 3*most, look(most, one, 1))
	require.Zero(t, look(most, two, 1), "another source")
}

func TestSilenceBeginsWithTheAnswerAndEndsWithTheQuestion(t *testing.T) {
	t.Parallel()
	var s silence
	of := source{claim: driver.NewID()}
	observe := func(sent, answered time.Duration) time.Duration {
		return s.observe(Board{Sent: sent * time.Second, Answered: answered * time.Second}, of, 0, time.Minute)
	}
	require.Zero(t, observe(0, 5), "the sign of life may have been given while the answer was awaited")
	require.Zero(t, observe(4, 6))
	require.Equal(t, 2*time.Second, observe(7, 3600), "another may have been given meanwhile")
}
