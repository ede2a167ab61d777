package sim

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/generation"
)

// replica is one of many, on some host.
func (w *world) replica(name string, i int, g generation.Generation) profile {
	p := plain(fmt.Sprintf("%s%d", name, i), g).on(w.rng.IntN(hosts))
	p.join, p.restarts = w.between(0, 50*time.Millisecond), false
	p.delay = time.Duration(w.rng.IntN(3)) * step
	return p
}

// Replicas of a release are replaced one by one by those of the next: the first is
// promoted as it starts, by itself or by an operator, and from then on old ones are
// stopped or killed at any time.
func TestADeployOfManyReplicasMovesTheTokenOnce(t *testing.T) {
	t.Parallel()
	for replicas := 2; replicas <= 10; replicas++ {
		for seed := range max(1, *plays/5) {
			w := newWorld(seed, Machines{}, true)
			var old []*process
			for i := range replicas {
				old = append(old, w.begin(w.replica("blue", i, 1)))
			}
			require.True(t, w.run(time.Second, w.served))
			w.run(3*heartbeat, nil)
			w.restart()
			w.replace(old, replicas)
			w.run(2*lease, nil)
			if w.claims != 1 || !w.by(2)() {
				w.violated("%d claims, and %v leads", w.claims, w.head.Claim.Token)
			}
			require.NoError(t, w.error())
		}
	}
}

// replace starts new replicas and ends the old ones.
func (w *world) replace(old []*process, replicas int) {
	self := w.one(2)
	for i := range replicas {
		next := w.replica("green", i, 2)
		next.auto = self
		next.migration = w.between(0, 300*time.Millisecond)
		w.begin(next)
		if i == 0 {
			w.run(w.between(0, time.Second), func() bool { return self && w.read().intent.generation == 2 })
			w.promote(2)
		}
		w.run(w.between(0, 500*time.Millisecond), nil)
		ends := w.rng.IntN(len(old))
		if p := old[ends]; w.one(2) {
			p.kill("replaced")
		} else {
			p.terminate()
		}
		old = append(old[:ends:ends], old[ends+1:]...)
	}
}
