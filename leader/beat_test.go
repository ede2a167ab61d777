package leader

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func TestSilenceIsCountedBetweenLooksThatCouldRead(t *testing.T) {
	const most = time.Second
	claim, at := driver.NewID(), time.Now()
	later := func(d time.Duration) time.Time { at = at.Add(d); return at }
	var s silence
	require.Zero(t, s.observe(at, claim, Beat{}, most))
	require.Equal(t, 700*time.Millisecond, s.observe(later(700*time.Millisecond), claim, Beat{}, most))
	require.Equal(t, 1700*time.Millisecond, s.observe(later(time.Hour), claim, Beat{}, most), "a process that was frozen")
	require.Zero(t, s.observe(later(most), claim, Beat{Claim: claim, Seq: 1}, most), "a sign of life")
	require.Equal(t, most, s.observe(later(most), claim, Beat{Claim: claim, Seq: 1}, most))
	require.Equal(t, 2*most, s.observe(later(most), claim, Beat{Claim: claim, Seq: 1}, most))
	s.blind()
	require.Zero(t, s.observe(later(most), claim, Beat{Claim: claim, Seq: 1}, most), "a look that could not read")
	require.Zero(t, s.observe(later(most), driver.NewID(), Beat{Claim: claim, Seq: 1}, most), "another claim")
}
