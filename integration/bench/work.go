package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/work"
)

const (
	// workGoal is how many jobs a second are enqueued, run and completed at least, on
	// PostgreSQL.
	workGoal = 15_000
	// orphanGoal bounds when the first orphan is claimed behind a takeover, in ms at
	// the 99th percentile.
	orphanGoal = 50
	// workBatch is how many jobs one commit enqueues.
	workBatch = 100
	// producers are the clients that enqueue.
	producers = 8
)

// works measures package work.
func works(b *bench) error {
	return errors.Join(workThroughput(b), workOrphans(b))
}

// enqueue enqueues jobs of a kind, many in a commit.
func enqueueJobs(ctx context.Context, c *catalog.Catalog, kind string, jobs int) error {
	for left := jobs; left > 0; left -= 1000 {
		all := make([]work.Request, min(left, 1000))
		for i := range all {
			all[i] = work.Request{Kind: kind, Key: fmt.Sprint(left - i), Payload: value(uint64(left - i))[:100]}
		}
		if err := c.Update(ctx, func(tx *catalog.Tx) error { _, err := work.EnqueueAll(tx, all...); return err }); err != nil {
			return err
		}
	}
	return nil
}

// runQueue runs a Queue until stop is called, which returns what Run did.
func runQueue(ctx context.Context, c *catalog.Catalog, cfg work.Config) (q *work.Queue, stop func() error, err error) {
	q, err = work.New(c, cfg)
	if err != nil {
		return nil, nil, err
	}
	stopped := errors.New("bench: stopped")
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	return q, func() error {
		cancel(stopped)
		if err := <-done; !errors.Is(err, stopped) {
			return err
		}
		return nil
	}, nil
}

// workThroughput enqueues in batches of 100 and waits until everything has run. The
// jobs do nothing, and each is claimed and completed under the token.
func workThroughput(b *bench) error {
	h, err := b.hold(fresh("work"))
	if err != nil {
		return err
	}
	defer h.close()
	var ran atomic.Int64
	q, stop, err := runQueue(b.ctx, h.Catalog, work.Config{Concurrency: 1000, Kinds: []work.Kind{{Name: "none", Run: func(context.Context, *work.Job) error {
		ran.Add(1)
		return nil
	}}}})
	if err != nil {
		return err
	}
	var best timing
	for range b.rounds {
		began := time.Now()
		t, err := load(b.ctx, producers, max(1, b.workJobs/workBatch/producers), func(ctx context.Context, _ int) error {
			all := make([]work.Request, workBatch)
			for i := range all {
				all[i] = work.Request{Kind: "none", Payload: b.next()[:100]}
			}
			return h.Update(ctx, func(tx *catalog.Tx) error { _, err := work.EnqueueAll(tx, all...); return err })
		})
		if err == nil {
			err = q.Idle(b.ctx)
		}
		if err != nil {
			return err
		}
		t.ops = float64(ran.Swap(0)) / time.Since(began).Seconds()
		if t.ops > best.ops {
			best = t
		}
	}
	f := figure{Name: "jobs enqueued, run and completed", P50: best.p50, P99: best.p99, Ops: best.ops,
		Note: "best round; in batches of 100 by 8 clients; the times are those of one batch's commit"}
	if b.backend.name() == "postgres" {
		f = f.atLeast(best.ops, workGoal, " jobs/s")
	} else {
		f.Met, f.Goal = true, "-"
	}
	b.report(f)
	return stop()
}

// workOrphans measures from the claim's commit until the first of many orphans runs
// again.
func workOrphans(b *bench) error {
	name := fresh("orphans")
	h, err := b.hold(name)
	if err != nil {
		return err
	}
	err = errors.Join(enqueueJobs(b.ctx, h.Catalog, "orphan", b.orphans), orphan(b.ctx, h.Catalog))
	h.close()
	if err != nil {
		return err
	}
	var took []time.Duration
	for range b.takeovers() {
		d, err := firstOrphan(b, name)
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	t := newTiming(took, time.Second)
	b.report(figure{Name: fmt.Sprintf("first of %d orphans runs again", b.orphans), P50: t.p50, P99: t.p99,
		Note: fmt.Sprintf("from the claim's commit; %d takeovers", len(took))}.atMost(t.p99/1000, orphanGoal, " ms at p99"))
	return nil
}

// takeovers is how many takeovers of work are measured.
func (p plan) takeovers() int { return max(10, p.takeover/4) }

// orphan makes every job one that runs under the token of c, as a holder leaves them
// that dies with so many running.
func orphan(ctx context.Context, c *catalog.Catalog) error {
	jobs, runs := catalog.Bytes("fencepost.work.jobs"), catalog.Bytes("fencepost.work.runs")
	var keys []string
	err := c.View(func(r *catalog.Reader) error {
		return jobs.Scan(r, "", func(key string, _ []byte) bool { keys = append(keys, key); return true })
	})
	for len(keys) > 0 && err == nil {
		some := keys[:min(len(keys), 5000)]
		keys = keys[len(some):]
		run := fmt.Appendf(nil, `{"claim":%q,"serial":1,"at":%q,"attempt":1}`, c.Token(), time.Now().UTC().Format(time.RFC3339Nano))
		err = c.Update(ctx, func(tx *catalog.Tx) error {
			for _, key := range some {
				if err := runs.Set(tx, key, run); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return err
}

// firstOrphan takes over and returns how soon an orphan runs. It gives the orphans
// that it ran back when it ends.
func firstOrphan(b *bench, name string) (time.Duration, error) {
	store, err := b.backend.open(b.ctx, name)
	if err != nil {
		return 0, err
	}
	timed := &timedStore{Store: store}
	h, err := b.holdIn(timed, name)
	if err != nil {
		return 0, err
	}
	defer h.close()
	first := make(chan time.Time, 1)
	_, stop, err := runQueue(b.ctx, h.Catalog, work.Config{Kinds: []work.Kind{{Name: "orphan", Run: func(ctx context.Context, _ *work.Job) error {
		select {
		case first <- time.Now():
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}}}})
	if err != nil {
		return 0, err
	}
	d := (<-first).Sub(timed.landed)
	return d, stop()
}

// workWaiting states what a million waiting jobs cost.
func workWaiting(b *bench) error {
	name := fresh("waiting")
	h, err := b.hold(name)
	if err != nil {
		return err
	}
	if err := enqueueJobs(b.ctx, h.Catalog, "wait", b.waiting); err != nil {
		return err
	}
	h.close()
	debug.FreeOSMemory()
	before, err := rss()
	if err != nil {
		return err
	}
	began := time.Now()
	h, err = b.hold(name)
	if err != nil {
		return err
	}
	defer h.close()
	opened := time.Since(began)
	first := make(chan struct{}, 1)
	k := work.Kind{Name: "wait", Concurrency: 1, Run: func(ctx context.Context, _ *work.Job) error {
		select {
		case first <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	began = time.Now()
	q, stop, err := runQueue(b.ctx, h.Catalog, work.Config{Kinds: []work.Kind{k}})
	if err != nil {
		return err
	}
	<-first
	started := time.Since(began)
	if _, err := q.Status(b.ctx); err != nil {
		return err
	}
	loaded := time.Since(began)
	began = time.Now()
	if _, err := q.Status(b.ctx); err != nil {
		return err
	}
	status := time.Since(began)
	began = time.Now()
	const passes = 1000
	for range passes {
		if _, err := q.Pass(b.ctx); err != nil {
			return err
		}
	}
	pass := time.Since(began) / passes
	debug.FreeOSMemory()
	after, err := rss()
	if err != nil {
		return err
	}
	b.report(figure{Name: fmt.Sprintf("%d waiting jobs", b.waiting), P50: micros(pass), Met: true, Goal: "-",
		Note: fmt.Sprintf("a pass; opened in %v, the first job ran %v later, all read behind %v, a status takes %v, %.0f MB resident", opened.Round(time.Millisecond), started.Round(time.Millisecond), loaded.Round(time.Millisecond), status.Round(time.Millisecond), float64(after-before)/1e6)})
	return stop()
}
