package main

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fencepost/fencepost/catalog"
)

// The goals for one read of an entry in a View: nanoseconds, and allocations:
// the Reader, which no other View shares, since it is dead afterwards.
const (
	viewGoal   = 200
	viewAllocs = 1
)

// views measures reads of a small catalog.
func views(b *bench) error {
	const n = 10_000
	h, err := b.hold(fresh("view"))
	if err != nil {
		return err
	}
	defer h.close()
	if err := fillCatalog(b, h, n); err != nil {
		return err
	}
	return viewOf(b, h, n)
}

// viewOf measures reads of random entries of a catalog of n.
func viewOf(b *bench, h *holder, n int) error {
	keys := make([]string, 4096)
	for i := range keys {
		keys[i] = key(rand.IntN(n))
	}
	i := 0
	var failed error
	read := func() {
		k := keys[i%len(keys)]
		i++
		err := h.View(func(r *catalog.Reader) error {
			v, ok, err := entries.Get(r, k)
			if err == nil && (!ok || len(v) != valueSize) {
				err = fmt.Errorf("entry %s has %d bytes", k, len(v))
			}
			return err
		})
		if err != nil {
			failed = err
		}
	}
	res := testing.Benchmark(func(t *testing.B) {
		for range t.N {
			read()
		}
	})
	ns, allocs := float64(res.T.Nanoseconds())/float64(res.N), testing.AllocsPerRun(1000, read)
	f := figure{Name: fmt.Sprintf("view, one of %d entries", n), P50: ns / 1000, Ops: 1e9 / ns, Note: fmt.Sprintf("%.0f ns, %g allocations", ns, allocs)}
	f.Goal, f.Met = fmt.Sprintf("<= %d ns, %d allocation", viewGoal, viewAllocs), ns <= viewGoal && allocs <= viewAllocs
	b.report(f)
	return failed
}
