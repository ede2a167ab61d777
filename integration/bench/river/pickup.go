package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// pickup measures from when another process begins to enqueue one job until its run
// begins.
func pickup(t *trial) ([]figure, error) {
	found, err := t.pickups2(func(m func(*trial, queue) (float64, error)) func(*trial, queue) (float64, error) { return m })
	if err != nil {
		return found, err
	}
	q, err := newRiver(t.ctx, t.server)
	if err != nil {
		return found, err
	}
	defer q.close()
	took, err := t.pickups1(q, settings{workers: 100, defaults: true})
	if err != nil {
		return found, err
	}
	return append(found, figure{name: "the same, River by its defaults", ours: "-", rivers: span(took), note: "one round"}), nil
}

// pickups2 measures both, each way.
func (t *trial) pickups2(under func(func(*trial, queue) (float64, error)) func(*trial, queue) (float64, error)) ([]figure, error) {
	all := map[string][]time.Duration{}
	_, err := t.compare(under(func(t *trial, q queue) (float64, error) {
		took, err := t.pickups1(q, settings{workers: 100})
		all[q.name()] = append(all[q.name()], took...)
		return 0, err
	}))
	if err != nil {
		return nil, err
	}
	o, r := all["ours"], all["River"]
	return []figure{{
		name: "pick-up of a job of another process, p50 / p99", ours: span(o), rivers: span(r),
		ratio: float64(at(r, 50)) / float64(at(o, 50)), note: fmt.Sprintf("%d jobs, one by one; ratio of p50, of p99 %.2f", len(o), float64(at(r, 99))/float64(at(o, 99))),
	}}, nil
}

func (t *trial) pickups1(q queue, s settings) (took []time.Duration, err error) {
	begun := make(chan time.Duration, 1)
	w, err := q.work(t.ctx, s, func(_ context.Context, r running) error {
		begun <- time.Since(time.Unix(0, r.payload))
		return nil
	})
	if err != nil {
		return nil, err
	}
	c, err := t.child("post", q)
	if err != nil {
		return nil, err
	}
	for range t.pickups / t.rounds {
		if _, err := fmt.Fprintln(c.in); err != nil {
			return nil, err
		}
		select {
		case d := <-begun:
			took = append(took, d)
		case <-time.After(time.Minute):
			return nil, errors.New("a job was not picked up within a minute")
		}
	}
	return took, errors.Join(c.in.Close(), c.Wait(), w.stop())
}

func at(all []time.Duration, percent int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[min(len(all)-1, len(all)*percent/100)]
}

func span(all []time.Duration) string {
	return fmt.Sprintf("%.2f / %.2f ms", float64(at(all, 50).Microseconds())/1000, float64(at(all, 99).Microseconds())/1000)
}
