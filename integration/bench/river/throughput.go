package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	producers = 8
	batch     = 100
)

func nothing(context.Context, running) error { return nil }

// throughput measures jobs per second, as River's benchmark does and enqueue to
// complete.
func throughput(t *trial) ([]figure, error) {
	down, err1 := t.compare(burnDown)
	through, err2 := t.compare(enqueueToComplete)
	return []figure{
		perSecond("jobs a second, all enqueued before", down, "what `river bench -n` measures"),
		perSecond("jobs a second, enqueue to complete", through, fmt.Sprintf("by %d clients in batches of %d", producers, batch)),
	}, errors.Join(err1, err2)
}

// compare measures both in each round, and returns what it found by name.
func (t *trial) compare(measure func(*trial, queue) (float64, error)) (map[string][]float64, error) {
	found := map[string][]float64{}
	for round := range t.rounds {
		both, closeAll, err := t.both(round)
		if err != nil {
			return found, err
		}
		for _, q := range both {
			x, err := measure(t, q)
			if err != nil {
				closeAll()
				return found, fmt.Errorf("%s: %w", q.name(), err)
			}
			found[q.name()] = append(found[q.name()], x)
		}
		closeAll()
	}
	return found, nil
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

func perSecond(name string, found map[string][]float64, note string) figure {
	o, r := median(found["ours"]), median(found["River"])
	return figure{name: name, ours: spread(found["ours"]), rivers: spread(found["River"]), ratio: o / max(r, 1), note: note}
}

// spread shows the median, the least and the most.
func spread(all []float64) string {
	return fmt.Sprintf("%.0f (%.0f to %.0f)", median(all), slices.Min(all), slices.Max(all))
}

// burnDown enqueues everything first, and measures how long it takes to run.
func burnDown(t *trial, q queue) (float64, error) {
	for left := t.jobs; left > 0; left -= 5000 {
		if err := q.enqueue(t.ctx, min(left, 5000)); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	w, err := q.work(t.ctx, settings{workers: 2000}, nothing)
	if err != nil {
		return 0, err
	}
	err = w.finish(t.ctx, t.jobs)
	took := time.Since(began)
	return float64(t.jobs) / took.Seconds(), errors.Join(err, w.stop())
}

// enqueueToComplete enqueues in batches while the jobs run.
func enqueueToComplete(t *trial, q queue) (float64, error) {
	w, err := q.work(t.ctx, settings{workers: 2000}, nothing)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	errs := make([]error, producers)
	each := t.jobs / batch / producers
	var wg sync.WaitGroup
	for i := range producers {
		wg.Go(func() {
			for n := 0; n < each && errs[i] == nil; n++ {
				errs[i] = q.enqueue(t.ctx, batch)
			}
		})
	}
	wg.Wait()
	jobs := each * producers * batch
	err = errors.Join(append(errs, w.finish(t.ctx, jobs))...)
	took := time.Since(began)
	return float64(jobs) / took.Seconds(), errors.Join(err, w.stop())
}

// underIdleTransaction measures again while a transaction elsewhere on the server
// stays open, which keeps the server from removing dead rows.
func underIdleTransaction(t *trial) ([]figure, error) {
	withIdle := func(measure func(*trial, queue) (float64, error)) func(*trial, queue) (float64, error) {
		return func(t *trial, q queue) (float64, error) {
			end, err := idleIn(t.ctx, q)
			if err != nil {
				return 0, err
			}
			x, err := measure(t, q)
			return x, errors.Join(err, end())
		}
	}
	through, err := t.compare(withIdle(enqueueToComplete))
	if err != nil {
		return nil, err
	}
	picked, err := t.pickups2(withIdle)
	return append([]figure{perSecond("jobs a second, under an idle transaction", through, "open for the whole load, with a snapshot")}, picked...), err
}

// idleIn opens a transaction in a queue's database.
func idleIn(ctx context.Context, q queue) (end func() error, err error) {
	conn, err := pgx.Connect(ctx, urlOf(q))
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, `begin isolation level repeatable read; select txid_current()`)
	return func() error { return conn.Close(ctx) }, err
}

func urlOf(q queue) string {
	if o, ok := q.(*ours); ok {
		return o.url
	}
	return q.(*rivers).url
}
