package main

import "context"

// The goals of Confirm, as multiples of a raw read's time and of the raw
// store's reads a second by 64 clients.
const (
	serialConfirmGoal = 1.1
	groupConfirmGoal  = 5
)

// readFactor is how many more reads than commits one round takes.
const readFactor = 4

// confirms measures Confirm against a raw read by primary key.
func confirms(b *bench) error {
	r, h, err := b.pair()
	if err != nil {
		return err
	}
	defer r.close()
	defer h.close()
	confirm := func(ctx context.Context, _ int) error { return h.Confirm(ctx) }
	with := func(workers, n int, op operation) round {
		return func() (timing, error) { return load(b.ctx, workers, n*readFactor, op) }
	}
	c, err := versus(b.rounds, with(1, b.serial, r.read), with(1, b.serial, confirm))
	if err != nil {
		return err
	}
	b.report(figure{Name: "confirm, serial", P50: c.ours.p50, P99: c.ours.p99, Ops: c.ours.ops, FloorUS: c.floor.p50, Ratio: c.p50}.
		atMost(c.p50, serialConfirmGoal, "x raw read"))
	if c, err = versus(b.rounds, with(workers, b.each, r.read), with(workers, b.each, confirm)); err != nil {
		return err
	}
	b.report(figure{Name: "confirm, 64 at once", P50: c.ours.p50, P99: c.ours.p99, Ops: c.ours.ops, FloorUS: c.floor.each(), Ratio: c.ops}.
		atLeast(c.ops, groupConfirmGoal, "x raw 64"))
	return nil
}
