package main

import (
	"context"
	"slices"
	"sync"
	"time"
)

// timing is what one round, or the median over rounds, came to.
type timing struct {
	p50, p99, ops float64 // µs, µs, operations a second
}

// each is the time of one operation at full load, in µs.
func (t timing) each() float64 { return 1e6 / t.ops }

func newTiming(took []time.Duration, elapsed time.Duration) timing {
	slices.Sort(took)
	at := func(q float64) float64 { return micros(took[int(q*float64(len(took)-1))]) }
	return timing{p50: at(0.50), p99: at(0.99), ops: float64(len(took)) / elapsed.Seconds()}
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// An operation is called with the number of its worker.
type operation func(ctx context.Context, worker int) error

// load runs op n times on each of some workers.
func load(ctx context.Context, workers, n int, op operation) (timing, error) {
	var wg sync.WaitGroup
	took := make([]time.Duration, workers*n)
	errs := make(chan error, workers)
	began := time.Now()
	for w := range workers {
		wg.Go(func() {
			if err := repeat(ctx, took[w*n:(w+1)*n], w, op); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(began)
	select {
	case err := <-errs:
		return timing{}, err
	default:
		return newTiming(took, elapsed), nil
	}
}

func repeat(ctx context.Context, took []time.Duration, worker int, op operation) error {
	for i := range took {
		began := time.Now()
		if err := op(ctx, worker); err != nil {
			return err
		}
		took[i] = time.Since(began)
	}
	return nil
}

// A round is one measurement of floor or of ours.
type round func() (timing, error)

// compared are the medians over all rounds.
type compared struct {
	floor, ours timing
	p50, ops    float64 // ratios of ours to the floor, each the median of the rounds' own
}

// versus lets floor and ours take turns, in alternating order. The first round
// warms up and does not count.
func versus(rounds int, floor, ours round) (compared, error) {
	var floors, all []timing
	for i := range rounds + 1 {
		f, o, err := turn(i%2 == 1, floor, ours)
		if err != nil {
			return compared{}, err
		}
		if i > 0 {
			floors, all = append(floors, f), append(all, o)
		}
	}
	c := compared{floor: medians(floors), ours: medians(all)}
	var p50, ops []float64
	for i := range all {
		p50 = append(p50, all[i].p50/floors[i].p50)
		ops = append(ops, all[i].ops/floors[i].ops)
	}
	c.p50, c.ops = median(p50), median(ops)
	return c, nil
}

func turn(oursFirst bool, floor, ours round) (f, o timing, err error) {
	if oursFirst {
		if o, err = ours(); err == nil {
			f, err = floor()
		}
		return f, o, err
	}
	if f, err = floor(); err == nil {
		o, err = ours()
	}
	return f, o, err
}

func medians(all []timing) timing {
	of := func(part func(timing) float64) float64 {
		var values []float64
		for _, t := range all {
			values = append(values, part(t))
		}
		return median(values)
	}
	return timing{
		p50: of(func(t timing) float64 { return t.p50 }),
		p99: of(func(t timing) float64 { return t.p99 }),
		ops: of(func(t timing) float64 { return t.ops }),
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
