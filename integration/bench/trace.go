package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/leader"
)

// A tracer prints what the processes of a promotion ask of the store, and when,
// for whoever wants to know where the time goes. It is on where
// FENCEPOST_BENCH_TRACE is set, and otherwise nil.
type tracer struct {
	mu    sync.Mutex
	began time.Time
	lines []string
}

func newTracer() *tracer {
	if os.Getenv("FENCEPOST_BENCH_TRACE") == "" {
		return nil
	}
	return new(tracer)
}

// start forgets what was noted before.
func (t *tracer) start(began time.Time) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.began, t.lines = began, nil
}

// note notes what began at a time and has just ended.
func (t *tracer) note(who, what string, began time.Time) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, fmt.Sprintf("%8.0f %6.0f  %s %s", micros(began.Sub(t.began)), micros(time.Since(began)), who, what))
}

// print prints what was noted, and the moves, in µs since the start.
func (t *tracer) print(moves []leader.Move, committed time.Time) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range moves {
		if m.At.After(t.began) {
			t.lines = append(t.lines, fmt.Sprintf("%8.0f         %v -> %v", micros(m.At.Sub(t.began)), m.From, m.To))
		}
	}
	t.lines = append(t.lines, fmt.Sprintf("%8.0f         committed", micros(committed.Sub(t.began))))
	slices.Sort(t.lines)
	fmt.Fprintln(os.Stderr, strings.Join(t.lines, "\n")+"\n")
}

// A tracedStore is a store of one process.
type tracedStore struct {
	driver.Store
	t   *tracer
	who string
}

func (s *tracedStore) Head(ctx context.Context) (driver.Head, error) {
	defer s.t.note(s.who, "head", time.Now())
	return s.Store.Head(ctx)
}

func (s *tracedStore) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	defer s.t.note(s.who, "append", time.Now())
	return s.Store.Append(ctx, prior, rec)
}

func (s *tracedStore) Notes(ctx context.Context, prefix string) ([]driver.Note, error) {
	defer s.t.note(s.who, "notes "+prefix, time.Now())
	return s.Store.Notes(ctx, prefix)
}

func (s *tracedStore) Post(ctx context.Context, n driver.Note) (int64, error) {
	defer s.t.note(s.who, "post "+n.Key, time.Now())
	return s.Store.Post(ctx, n)
}

func (s *tracedStore) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	defer s.t.note(s.who, "log", time.Now())
	return s.Store.Log(ctx, after, fn)
}

func (s *tracedStore) Claim(ctx context.Context) (driver.Claiming, error) {
	defer s.t.note(s.who, "claim", time.Now())
	c, err := s.Store.Claim(ctx)
	if err != nil {
		return nil, err
	}
	return &tracedClaiming{c, s}, nil
}

type tracedClaiming struct {
	driver.Claiming
	s *tracedStore
}

func (c *tracedClaiming) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	defer c.s.t.note(c.s.who, "install", time.Now())
	return c.Claiming.Install(ctx, claim, rec, when...)
}

// What every store of the benchmark can do besides.

func (s *tracedStore) Watch(ctx context.Context, wake func()) error {
	return s.Store.(driver.Watcher).Watch(ctx, wake)
}

// WatchClaims falls back on what a holder does where the store has none.
func (s *tracedStore) WatchClaims(ctx context.Context, wake func()) error {
	if w, ok := s.Store.(driver.ClaimWatcher); ok {
		return w.WatchClaims(ctx, wake)
	}
	return s.Watch(ctx, wake)
}

func (s *tracedStore) Warm(ctx context.Context) error { return s.Store.(driver.Warmer).Warm(ctx) }
