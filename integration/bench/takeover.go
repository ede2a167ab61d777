package main

import (
	"context"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
)

// takeoverGoal bounds how late a holder's context ends after a takeover was
// committed, at the 99th percentile, in µs.
const takeoverGoal = 5000

// quiet is how long the store is idle before a takeover.
const quiet = 100 * time.Millisecond

// takeovers measures from when the claim's commit was acknowledged to its
// claimer until the old holder's context has ended. The claimer is another
// handle with a store and connections of its own, in this process; the old
// holder hears of it through the store alone.
func takeovers(b *bench) error {
	name := fresh("takeover")
	var late []time.Duration
	for range b.takeover {
		d, err := takeover(b, name)
		if err != nil {
			return err
		}
		late = append(late, d)
	}
	t := newTiming(late, time.Second)
	b.report(figure{Name: "takeover until the holder's end", P50: t.p50, P99: t.p99, Note: "two handles of one process"}.
		atMost(t.p99, takeoverGoal, " µs at p99"))
	return nil
}

func takeover(b *bench, name string) (time.Duration, error) {
	old, err := b.hold(name)
	if err != nil {
		return 0, err
	}
	defer old.close()
	store, err := b.backend.open(b.ctx, name)
	if err != nil {
		return 0, err
	}
	defer func() { _ = store.Close() }() // measured by then
	ended := make(chan time.Time, 1)
	go func() {
		<-old.Done()
		ended <- time.Now()
	}()
	time.Sleep(quiet)
	timed := &timedStore{Store: store}
	c, err := catalog.Open(b.ctx, timed, catalog.Config{Generation: 1})
	if err != nil {
		return 0, err
	}
	late := (<-ended).Sub(timed.landed)
	return max(late, 0), c.Close()
}

// timedStore notes when a claim was acknowledged.
type timedStore struct {
	driver.Store
	landed time.Time
}

// Claim implements [driver.Store].
func (s *timedStore) Claim(ctx context.Context) (driver.Claiming, error) {
	c, err := s.Store.Claim(ctx)
	if err != nil {
		return nil, err
	}
	return &timedClaiming{c, s}, nil
}

type timedClaiming struct {
	driver.Claiming
	store *timedStore
}

// Install implements [driver.Claiming].
func (c *timedClaiming) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	err := c.Claiming.Install(ctx, claim, rec, when...)
	c.store.landed = time.Now()
	return err
}
