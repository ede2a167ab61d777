package main

import "fmt"

// The goals of a commit: of a serial one as a multiple of the floor's time, of
// 64 writers as a multiple of its throughput.
const (
	serialCommitGoal = 1.10
	groupCommitGoal  = 1.5
	groupSerialGoal  = 5 // SQLite: of the raw serial throughput
)

// commits measures one fenced commit after the other, and 64 writers that share
// commits.
func commits(b *bench) error {
	r, h, err := b.pair()
	if err != nil {
		return err
	}
	defer r.close()
	defer h.close()
	serial := func(op operation) round {
		return func() (timing, error) { return load(b.ctx, 1, b.serial, op) }
	}
	c, err := versus(b.rounds, serial(b.rawWrite(r)), serial(b.update(h)))
	if err != nil {
		return err
	}
	b.report(figure{Name: "commit, serial", P50: c.ours.p50, P99: c.ours.p99, Ops: c.ours.ops, FloorUS: c.floor.p50, Ratio: c.p50}.
		atMost(c.p50, serialCommitGoal, "x raw"))
	return groupCommits(b, r, h)
}

// groupCommits measures 64 writers. SQLite has one writing connection, and its
// floor is the serial commit.
func groupCommits(b *bench, r raw, h *holder) error {
	floors, goal, unit := workers, groupCommitGoal, "x raw 64"
	if b.backend.name() == "sqlite" {
		floors, goal, unit = 1, groupSerialGoal, "x raw serial"
	}
	n := b.each * workers
	floor := func() (timing, error) { return load(b.ctx, floors, n/floors/b.slower(floors), b.rawWrite(r)) }
	first, updates := h.Head().Revision, 0
	ours := func() (timing, error) {
		updates += n
		return load(b.ctx, workers, b.each, b.update(h))
	}
	c, err := versus(b.rounds, floor, ours)
	if err != nil {
		return err
	}
	batches := float64(h.Head().Revision - first)
	note := fmt.Sprintf("%.1f updates a commit", float64(updates)/batches)
	b.report(figure{Name: "commit, 64 writers", P50: c.ours.p50, P99: c.ours.p99, Ops: c.ours.ops, FloorUS: c.floor.each(), Ratio: c.ops, Note: note}.
		atLeast(c.ops, goal, unit))
	return batchSyncs(b, h)
}

// slower keeps a serial floor as short as the parallel one.
func (b *bench) slower(floors int) int {
	if floors == 1 {
		return 8
	}
	return 1
}

// batchSyncs says how often the store syncs for one commit that 64 writers
// share: once is what cannot be improved on. SQLite syncs once a commit.
func batchSyncs(b *bench, h *holder) error {
	if b.backend.name() == "sqlite" {
		return nil
	}
	first := h.Head().Revision
	syncs, err := b.countSyncs(h.name, b.update(h), func() error {
		_, err := load(b.ctx, workers, b.each, b.update(h))
		return err
	})
	if err != nil {
		return err
	}
	each := float64(syncs) / float64(h.Head().Revision-first)
	b.report(figure{Name: "syncs of a shared commit", Ratio: each}.atMost(each, 1.05, " syncs"))
	return nil
}
