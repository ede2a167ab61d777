package leader

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func TestSilenceIsCountedBetweenLooksThatCouldRead(t *testing.T) {
	t.Parallel()
	const most = time.Second
	claim, at := driver.NewID(), time.Duration(0)
	var s silence
	look := func(after time.Duration, claim driver.ID, b Beat) time.Duration {
		at += after
		return s.observe(at, at, claim, b, most)
	}
	require.Zero(t, look(0, claim, Beat{}))
	require.Equal(t, 700*time.Millisecond, look(700*time.Millisecond, claim, Beat{}))
	require.Equal(t, 1700*time.Millisecond, look(time.Hour, claim, Beat{}), "a process that was frozen")
	require.Zero(t, look(most, claim, Beat{Claim: claim, Seq: 1}), "a sign of life")
	require.Equal(t, most, look(most, claim, Beat{Claim: claim, Seq: 1}))
	require.Equal(t, 2*most, look(most, claim, Beat{Claim: claim, Seq: 1}))
	s.blind()
	require.Zero(t, look(most, claim, Beat{Claim: claim, Seq: 1}), "a look that could not read")
	require.Zero(t, look(most, driver.NewID(), Beat{Claim: claim, Seq: 1}), "another claim")
}

func TestSilenceBeginsWithTheAnswerAndEndsWithTheQuestion(t *testing.T) {
	t.Parallel()
	claim := driver.NewID()
	var s silence
	require.Zero(t, s.observe(0, 5*time.Second, claim, Beat{}, time.Minute), "the sign of life may have been given while the answer was awaited")
	require.Zero(t, s.observe(4*time.Second, 6*time.Second, claim, Beat{}, time.Minute))
	require.Equal(t, 2*time.Second, s.observe(7*time.Second, time.Hour, claim, Beat{}, time.Minute), "another may have been given meanwhile")
}
