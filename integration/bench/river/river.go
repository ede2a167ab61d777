package main

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
)

// rivers is River on a database.
type rivers struct {
	pool   *pgxpool.Pool
	insert *river.Client[pgx.Tx] // inserts, and runs nothing
	url    string
	drop   func()
}

func newRiver(ctx context.Context, server string) (*rivers, error) {
	url, drop, err := database(ctx, server)
	if err != nil {
		return nil, err
	}
	r, err := openRiver(ctx, url)
	if err != nil {
		drop()
		return nil, err
	}
	r.drop = drop
	m, err := rivermigrate.New(riverpgxv5.New(r.pool), &rivermigrate.Config{Logger: silent()})
	if err != nil {
		return nil, err
	}
	_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return r, err
}

func openRiver(ctx context.Context, url string) (*rivers, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 20
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: silent()})
	return &rivers{pool: pool, insert: client, url: url, drop: func() {}}, err
}

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func (r *rivers) name() string { return "River" }

func (r *rivers) close() {
	r.pool.Close()
	r.drop()
}

// args are those of River's own benchmark.
type args struct {
	Num int64 `json:"num"`
}

// Kind implements river.JobArgs.
func (args) Kind() string { return kind }

func (r *rivers) enqueue(ctx context.Context, n int) error {
	all := make([]river.InsertManyParams, n)
	for i := range all {
		all[i].Args = args{int64(i)}
	}
	_, err := r.insert.InsertManyFast(ctx, all)
	return err
}

type riverWorker struct {
	client  *river.Client[pgx.Tx]
	events  <-chan *river.Event
	cancel  func()
	stopped chan struct{}
}

// work runs River with the settings of its benchmark, or with its defaults.
func (r *rivers) work(ctx context.Context, s settings, fn handler) (worker, error) {
	cfg := &river.Config{Logger: silent(), Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: s.workers}}}
	if !s.defaults {
		cfg.FetchCooldown, cfg.FetchPollInterval = 2*time.Millisecond, 20*time.Millisecond
	}
	return r.start(ctx, cfg, fn)
}

func (r *rivers) start(ctx context.Context, cfg *river.Config, fn handler) (*riverWorker, error) {
	cfg.Workers = river.NewWorkers()
	river.AddWorker(cfg.Workers, river.WorkFunc(func(ctx context.Context, j *river.Job[args]) error {
		return fn(ctx, running{id: j.ID, payload: j.Args.Num, attempt: j.Attempt})
	}))
	client, err := river.NewClient(riverpgxv5.New(r.pool), cfg)
	if err != nil {
		return nil, err
	}
	events, cancel := client.SubscribeConfig(&river.SubscribeConfig{ChanSize: 1_000_000, Kinds: []river.EventKind{river.EventKindJobCompleted}})
	return &riverWorker{client: client, events: events, cancel: cancel}, client.Start(ctx)
}

// finish counts completions as River's benchmark does: by the events that its
// completer sends.
func (w *riverWorker) finish(ctx context.Context, n int) error {
	for range n {
		select {
		case <-w.events:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (w *riverWorker) stop() error {
	w.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return w.client.StopAndCancel(ctx)
}

// atOnce retries at once, in place of River's one second and more.
type atOnce struct{}

// NextRetry implements river.ClientRetryPolicy.
func (atOnce) NextRetry(*rivertype.JobRow) time.Time { return time.Now() }
