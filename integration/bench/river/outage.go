package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// outage measures from when a server that crashed takes connections again until the
// next job runs, while jobs are enqueued all the time.
func outage(t *trial) ([]figure, error) {
	o, err1 := t.crash(func(server string) (queue, error) { return newOurs(t.ctx, server) })
	r, err2 := t.crash(func(server string) (queue, error) { return newRiver(t.ctx, server) })
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return []figure{{
		name: "server crashed and restarted: next run", ours: o.String(), rivers: r.String(),
		ratio: float64(r) / float64(max(o, time.Millisecond)), note: "one round; behind the moment at which the server is up again",
	}}, nil
}

// script runs the script that keeps a private server.
func script(verb, dir string) (string, error) {
	out, err := exec.Command(filepath.Join("..", "..", "..", "scripts", "postgres.sh"), verb, dir).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

func (t *trial) crash(open func(server string) (queue, error)) (took time.Duration, err error) {
	dir, err := os.MkdirTemp(os.Getenv("FENCEPOST_TEST_SERVERS"), "bench-river-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // the server runs as another user
		return 0, err
	}
	server, err := script("start", dir)
	if err != nil {
		return 0, err
	}
	defer func() { _, stopped := script("stop", dir); err = errors.Join(err, stopped) }()
	q, err := open(server)
	if err != nil {
		return 0, err
	}
	defer q.close()
	var newest atomic.Int64
	w, err := q.work(t.ctx, settings{workers: 100}, func(context.Context, running) error { newest.Store(time.Now().UnixNano()); return nil })
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			one, done := context.WithTimeout(ctx, time.Second)
			_ = q.enqueue(one, 1) // it fails while the server is away
			done()
		}
	}()
	if err := since(&newest, time.Now()); err != nil {
		return 0, fmt.Errorf("%s: before the crash: %w", q.name(), err)
	}
	if _, err := script("crash", dir); err != nil {
		return 0, err
	}
	if _, err := script("start", dir); err != nil {
		return 0, err
	}
	up := time.Now()
	if err := since(&newest, up); err != nil {
		return 0, fmt.Errorf("%s: %w", q.name(), err)
	}
	return time.Unix(0, newest.Load()).Sub(up).Round(time.Millisecond), nil
}

// since waits for a run that began behind a time.
func since(newest *atomic.Int64, at time.Time) error {
	for limit := time.Now().Add(2 * time.Minute); time.Now().Before(limit); {
		if newest.Load() > at.UnixNano() {
			return nil
		}
		<-time.After(time.Millisecond)
	}
	return errors.New("no job has run within 2 min")
}
