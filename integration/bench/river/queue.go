package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"crypto/rand"

	"github.com/jackc/pgx/v5"
)

// A queue is one of the two, on a database of its own.
type queue interface {
	name() string

	// enqueue enqueues n jobs in one commit.
	enqueue(ctx context.Context, n int) error

	// work runs jobs by fn until the worker is stopped.
	work(ctx context.Context, s settings, fn handler) (worker, error)

	close()
}

// A handler runs one job.
type handler func(ctx context.Context, r running) error

// running is what a run knows of its job.
type running struct {
	id, payload int64
	attempt     int
}

type settings struct {
	workers  int
	defaults bool // River's own, in place of those of its benchmark
}

type worker interface {
	// finish waits until n jobs of this worker were completed, durably.
	finish(ctx context.Context, n int) error
	stop() error
}

// both returns the two, in an order that alternates with the rounds, on databases of
// their own.
func (t *trial) both(round int) ([]queue, func(), error) {
	o, err := newOurs(t.ctx, t.server)
	if err != nil {
		return nil, nil, err
	}
	r, err := newRiver(t.ctx, t.server)
	if err != nil {
		o.close()
		return nil, nil, err
	}
	closeAll := func() { o.close(); r.close() }
	if round%2 == 1 {
		return []queue{r, o}, closeAll, nil
	}
	return []queue{o, r}, closeAll, nil
}

// database makes a database on the server and returns its URL.
func database(ctx context.Context, server string) (string, func(), error) {
	name := "bench_" + strings.ToLower(rand.Text()[:12])
	exec := func(sql string) error {
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }() // nothing is lost with it
		_, err = conn.Exec(ctx, sql)
		return err
	}
	if err := exec("create database " + name); err != nil {
		return "", nil, err
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", nil, fmt.Errorf("the server's URL: %w", err)
	}
	u.Path = "/" + name
	return u.String(), func() { _ = exec("drop database " + name + " with (force)") }, nil // the server is temporary
}
