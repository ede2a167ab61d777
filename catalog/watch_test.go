package catalog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheCatalogsOfAProcessPollAtTheSameInstants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 250 * time.Millisecond
		next := time.Now().Add(untilPoll(interval))
		for range 7 {
			wait := untilPoll(interval)
			require.Positive(t, wait)
			require.LessOrEqual(t, wait, interval)
			require.Zero(t, time.Now().Add(wait).Sub(next)%interval)
			<-time.After(wait/2 + 1)
		}
	})
}

func TestAWatchThatDoesNotBeginIsTriedEverLaterAndOneThatBrokeSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for begins, most := range map[bool]int{false: 20, true: 1000} {
			tries := 0
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			keepWatching(ctx, func(_ context.Context, wake func()) error {
				tries++
				if begins {
					wake()
				}
				return errors.New("broken")
			}, Config{}.withDefaults(), make(chan struct{}, 1))
			cancel()
			require.Greater(t, tries, most/4)
			require.LessOrEqual(t, tries, most)
		}
	})
}
