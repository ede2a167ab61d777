package main

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/postgres"
	"github.com/fencepost/fencepost/work"
	"github.com/fencepost/fencepost/work/pgwork"
)

const kind = "benchmark"

// ours is package work in the process that holds the token.
type ours struct {
	*catalog.Catalog
	store driver.Store
	url   string
	drop  func()
}

func newOurs(ctx context.Context, server string) (*ours, error) {
	url, drop, err := database(ctx, server)
	if err != nil {
		return nil, err
	}
	o, err := openOurs(ctx, url)
	if err != nil {
		drop()
		return nil, err
	}
	o.drop = drop
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	return o, errors.Join(pgwork.Install(ctx, conn), conn.Close(ctx))
}

// openOurs takes the token.
func openOurs(ctx context.Context, url string) (*ours, error) {
	store, err := postgres.Open(ctx, url, postgres.Config{})
	if err != nil {
		return nil, err
	}
	c, err := catalog.Open(ctx, store, catalog.Config{Generation: 1})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &ours{Catalog: c, store: store, url: url, drop: func() {}}, nil
}

func (o *ours) name() string { return "ours" }

func (o *ours) close() {
	_ = o.Close() // a fenced one says so
	_ = o.store.Close()
	o.drop()
}

func (o *ours) enqueue(ctx context.Context, n int) error {
	all := make([]work.Request, n)
	for i := range all {
		all[i] = work.Request{Kind: kind, Payload: binary.BigEndian.AppendUint64(nil, uint64(i))}
	}
	return o.Update(ctx, func(tx *catalog.Tx) error { _, err := work.EnqueueAll(tx, all...); return err })
}

type oursWorker struct {
	c    *catalog.Catalog
	q    *work.Queue
	quit context.CancelCauseFunc
	done chan error
}

var errStopped = errors.New("the measurement is over")

func (o *ours) work(ctx context.Context, s settings, fn handler) (worker, error) {
	k := work.Kind{Name: kind, MaxAttempts: -1, Run: func(ctx context.Context, j *work.Job) error {
		r := running{id: int64(j.ID), attempt: j.Attempt + j.Interrupted}
		if len(j.Payload) == 8 {
			r.payload = int64(binary.BigEndian.Uint64(j.Payload))
		}
		return fn(ctx, r)
	}}
	q, err := work.New(o.Catalog, work.Config{Concurrency: s.workers, Kinds: []work.Kind{k}})
	if err != nil {
		return nil, err
	}
	ctx, quit := context.WithCancelCause(ctx)
	w := &oursWorker{o.Catalog, q, quit, make(chan error, 1)}
	go func() { w.done <- q.Run(ctx) }()
	return w, nil
}

func (w *oursWorker) finish(ctx context.Context, _ int) error { return w.q.Idle(ctx) }

func (w *oursWorker) stop() error {
	w.quit(errStopped)
	if err := <-w.done; !errors.Is(err, errStopped) {
		return err
	}
	return nil
}
