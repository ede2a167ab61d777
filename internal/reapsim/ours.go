package reapsim

import (
	"time"

	"github.com/fencepost/fencepost/reap"
)

// Ours returns a throttle of package reap for a game, which has learned to pause for start
// or longer. If it is not told, the server says nothing about what remains.
func Ours(g Game, start time.Duration, told bool, now func() time.Time, random func() float64) (Algorithm, error) {
	t, err := reap.NewThrottle(reap.ThrottleConfig{Limit: g.Limit, Window: g.Window, Now: now, Jitter: random})
	if err != nil {
		return nil, err
	}
	o := ours{t, told}
	for o.Pause() < start {
		t.Learn(reap.Answer{Limited: true})
	}
	return o, nil
}

type ours struct {
	throttle *reap.Throttle
	told     bool
}

func (o ours) Pause() time.Duration {
	d, _ := o.throttle.Pause()
	return d
}

func (o ours) Learn(_ int, limited bool, remaining int) time.Duration {
	if !o.told {
		remaining = -1
	}
	d, _ := o.throttle.Learn(reap.Answer{Limited: limited, Remaining: remaining})
	return d
}
