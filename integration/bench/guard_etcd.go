package main

import (
	"context"

	"github.com/fencepost/fencepost/catalog/etcd"
)

const guardedPutGoal = 1.02 // of the time of a Put

// guards measures a Put of a [etcd.GuardedKV] beside a Put of the client that
// it guards.
func (b *etcdBackend) guards(m *bench) error {
	table := fresh("guard")
	r, err := b.raw(m.ctx, table)
	if err != nil {
		return err
	}
	defer r.close()
	h, err := m.hold(fresh("bench"))
	if err != nil {
		return err
	}
	defer h.close()
	var kvs []*etcd.GuardedKV
	for _, client := range r.(*etcdRaw).clients[:guardClients] {
		kv, err := etcd.GuardKV(m.ctx, client, h.name, h.Token())
		if err != nil {
			return err
		}
		kvs = append(kvs, kv)
	}
	put := func(ctx context.Context, worker int) error {
		_, err := kvs[worker].Put(ctx, table+"/"+key(worker), string(m.next()))
		return err
	}
	c, err := versus(m.rounds, m.clients(m.rawWrite(r)), m.clients(put))
	if err != nil {
		return err
	}
	m.report(figure{Name: "guarded put, 32 clients", P50: c.ours.p50, P99: c.ours.p99, Ops: c.ours.ops, FloorUS: c.floor.each(), Ratio: 1 / c.ops}.
		atMost(1/c.ops, guardedPutGoal, "x put"))
	return nil
}
