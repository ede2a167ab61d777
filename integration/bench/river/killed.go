package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// killedWorker measures from the end of a process that ran 64 jobs until the first and
// the last of them run again. For ours another process takes over as soon as the
// supervisor knows of the death; River's other worker is there already.
func killedWorker(t *trial) ([]figure, error) {
	o, err1 := t.killed(func() (queue, error) { return newOurs(t.ctx, t.server) })
	r, err2 := t.killed(func() (queue, error) { return newRiver(t.ctx, t.server) })
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return []figure{{
		name: "killed worker: first / last of 64 jobs runs again", ours: fmt.Sprintf("%v / %v", o[0], o[1]), rivers: fmt.Sprintf("%v / %v", r[0], r[1]),
		ratio: float64(r[1]) / float64(o[1]), note: "one round; River by its smallest settings, RescueStuckJobsAfter 1 s and retry at once, and rescued by a leader that has just begun: one that leads already looks every 30 s, and the default is 1 h",
	}}, nil
}

func (t *trial) killed(open func() (queue, error)) (took [2]time.Duration, err error) {
	q, err := open()
	if err != nil {
		return took, err
	}
	defer q.close()
	if err := q.enqueue(t.ctx, hanging); err != nil {
		return took, err
	}
	c, err := t.child("hang", q)
	if err != nil {
		return took, err
	}
	if _, err := c.out.ReadString('\n'); err != nil {
		return took, fmt.Errorf("the worker has not begun: %w", err)
	}
	again := make(chan time.Time, hanging)
	fn := func(context.Context, running) error { again <- time.Now(); return nil }
	if r, ok := q.(*rivers); ok {
		w, err := r.start(t.ctx, smallest(hanging), fn)
		if err != nil {
			return took, err
		}
		defer func() { err = errors.Join(err, w.stop()) }()
	}
	if err := c.Process.Kill(); err != nil {
		return took, err
	}
	_ = c.Wait() // it was killed
	ended := time.Now()
	if o, ok := q.(*ours); ok {
		next, err := openOurs(t.ctx, o.url)
		if err != nil {
			return took, err
		}
		defer next.close()
		w, err := next.work(t.ctx, settings{workers: hanging}, fn)
		if err != nil {
			return took, err
		}
		defer func() { err = errors.Join(err, w.stop()) }()
	}
	for i := range hanging {
		select {
		case at := <-again:
			if i == 0 {
				took[0] = at.Sub(ended).Round(time.Millisecond)
			}
			took[1] = at.Sub(ended).Round(time.Millisecond)
		case <-time.After(2 * time.Minute):
			return took, fmt.Errorf("%s: %d of %d jobs run again within 2 min", q.name(), i, hanging)
		}
	}
	return took, nil
}
