package catalog

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// So a store that lets two claims be under way is found on a busy machine too.
func TestTheFirstOfTwoClaimsOfACheckWaitsUntilTheOtherOneIsAskedForAndAMomentLonger(t *testing.T) {
	t.Parallel()
	first := func(t *testing.T) (m *meeting, done chan struct{}) {
		m, done = newMeeting(), make(chan struct{})
		m.asked.pass()
		go func() { defer close(done); m.wait(t.Context()) }()
		<-time.After(time.Hour) // of the bubble's clock
		select {
		case <-done:
			require.Fail(t, "it waited for nobody")
		default:
		}
		return m, done
	}
	synctest.Test(t, func(t *testing.T) {
		m, done := first(t)
		m.asked.pass()
		begun := time.Now()
		<-done
		require.Equal(t, meetingTime, time.Since(begun), "the other one did not come")
	})
	synctest.Test(t, func(t *testing.T) {
		m, done := first(t)
		begun := time.Now()
		m.asked.pass()
		m.wait(t.Context())
		<-done
		require.Zero(t, time.Since(begun), "both are under way")
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		newMeeting().wait(ctx)
	})
}
