package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/fencepost/fencepost/work"
)

// zombies counts completions by runs whose job runs again elsewhere. The first run of
// each job hangs and ignores its context; the job is rescued, which for ours is the
// claim under a newer token, and its second run begins. Then the first run completes
// the job, half of them in a transaction and half by returning nil, while the second
// run goes on.
func zombies(t *trial) ([]figure, error) {
	o, err1 := oursZombies(t)
	r, err2 := riverZombies(t)
	f := figure{
		name: "completions by a zombie that were accepted", ours: fmt.Sprintf("%d of %d", o, t.zombies), rivers: fmt.Sprintf("%d of %d", r, t.zombies),
		note: "half by a transaction, half by returning nil; River by RescueStuckJobsAfter = 1 s, its default is 1 h",
	}
	return []figure{f}, errors.Join(err1, err2)
}

// A scene holds first and second runs until the test lets them go on.
type scene struct {
	first, second sync.WaitGroup
	let, end      chan struct{}
	accepted      atomic.Int64 // completions in a transaction
}

func newScene(n int) *scene {
	s := &scene{let: make(chan struct{}), end: make(chan struct{})}
	s.first.Add(n)
	s.second.Add(n)
	return s
}

// waits waits for all of a kind, for a while.
func waits(wg *sync.WaitGroup, d time.Duration, what string) error {
	all := make(chan struct{})
	go func() { wg.Wait(); close(all) }()
	select {
	case <-all:
		return nil
	case <-time.After(d):
		return fmt.Errorf("%s did not all begin within %v", what, d)
	}
}

// play is a run: the first one of a job hangs until it is let and then completes its
// job in a transaction, on demand; the second one hangs until the end.
func (s *scene) play(first bool, id int64, complete func() error) error {
	if !first {
		s.second.Done()
		<-s.end
		return errors.New("the measurement is over")
	}
	s.first.Done()
	<-s.let
	if id%2 == 0 && complete() == nil {
		s.accepted.Add(1)
	}
	return nil
}

func oursZombies(t *trial) (int, error) {
	blue, err := newOurs(t.ctx, t.server)
	if err != nil {
		return 0, err
	}
	defer blue.close()
	if err := blue.enqueue(t.ctx, t.zombies); err != nil {
		return 0, err
	}
	s := newScene(t.zombies)
	start := func(o *ours, first bool) (*work.Queue, chan error, error) {
		k := work.Kind{Name: kind, Run: func(_ context.Context, j *work.Job) error {
			return s.play(first, int64(j.ID), func() error { return o.Update(t.ctx, j.Complete) })
		}}
		q, err := work.New(o.Catalog, work.Config{Concurrency: t.zombies, Kinds: []work.Kind{k}})
		done := make(chan error, 1)
		if err == nil {
			go func() { done <- q.Run(t.ctx) }()
		}
		return q, done, err
	}
	_, zombie, err := start(blue, true)
	if err != nil {
		return 0, err
	}
	if err := waits(&s.first, time.Minute, "first runs"); err != nil {
		return 0, err
	}
	green, err := openOurs(t.ctx, blue.url)
	if err != nil {
		return 0, err
	}
	defer green.close()
	q, _, err := start(green, false)
	if err != nil {
		return 0, err
	}
	if err := waits(&s.second, time.Minute, "second runs"); err != nil {
		return 0, err
	}
	close(s.let)
	<-zombie
	st, err := q.Status(t.ctx)
	defer close(s.end)
	return int(st.Totals.Completed) + int(s.accepted.Load()), err
}

func riverZombies(t *trial) (int, error) {
	r, err := newRiver(t.ctx, t.server)
	if err != nil {
		return 0, err
	}
	defer r.close()
	if err := r.enqueue(t.ctx, t.zombies); err != nil {
		return 0, err
	}
	s := newScene(t.zombies)
	start := func(leads bool) (*river.Client[pgx.Tx], error) {
		cfg := smallest(t.zombies)
		cfg.LeaderElectionDisabled = !leads
		cfg.Workers = river.NewWorkers()
		river.AddWorker(cfg.Workers, river.WorkFunc(func(ctx context.Context, j *river.Job[args]) error {
			return s.play(j.Attempt == 1, j.ID, func() error {
				return pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
					_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, j)
					return err
				})
			})
		}))
		client, err := river.NewClient(riverpgxv5.New(r.pool), cfg)
		if err != nil {
			return nil, err
		}
		return client, client.Start(t.ctx)
	}
	zombie, err := start(false)
	if err != nil {
		return 0, err
	}
	if err := waits(&s.first, time.Minute, "River's first runs"); err != nil {
		return 0, err
	}
	<-time.After(2 * time.Second) // RescueStuckJobsAfter
	if _, err := start(true); err != nil {
		return 0, err
	}
	if err := waits(&s.second, 2*time.Minute, "River's second runs"); err != nil {
		return 0, err
	}
	close(s.let)
	defer close(s.end)
	if err := zombie.Stop(t.ctx); err != nil { // waits for its runs, and for its completer
		return 0, err
	}
	var completed int
	err = r.pool.QueryRow(t.ctx, `select count(*) from river_job where state = 'completed'`).Scan(&completed)
	return completed, err
}

// smallest has River rescue jobs as soon as its settings allow. A job without a
// JobTimeout is never rescued.
func smallest(workers int) *river.Config {
	return &river.Config{
		Logger: silent(), Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}},
		FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond,
		JobTimeout: time.Second, RescueStuckJobsAfter: time.Second, RetryPolicy: atOnce{},
	}
}
