package reap_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/orders"
	"github.com/fencepost/fencepost/reap"
)

// An outage of 14.5 hours was published whose cause was this: plans of the records of a
// name service were made by one process and applied by several. A worker that was delayed
// applied its old plan behind a newer one, whose worker then cleaned up and deleted old
// plans, the applied one among them. The name had no records, and no worker could mend it.
//
// Here blue and green each apply a plan and clean up, in every order of their steps.

// A zone is a name service, which has no transaction with the catalog.
type zone struct {
	plans  map[string]reap.Item
	active string
}

func (z *zone) source() reap.Source {
	return reap.Source{
		List: func(context.Context) (all []reap.Item, err error) {
			for _, plan := range z.plans {
				all = append(all, plan)
			}
			return all, nil
		},
		Delete: func(_ context.Context, plan reap.Item) error {
			if _, ok := z.plans[plan.ID]; !ok {
				return reap.ErrGone
			}
			delete(z.plans, plan.ID)
			return nil
		},
	}
}

func (z *zone) isDark() bool {
	_, ok := z.plans[z.active]
	return z.active != "" && !ok
}

// A rollout is one order of steps under one way to apply a plan.
type rollout struct {
	t     *testing.T
	way   applying
	zone  zone
	store *memory.Store
	gate  *fence.Gate
	token map[string]fence.Token
	holds map[string]*catalog.Catalog
	newer map[string]bool // what each has seen when it checked
	dark  bool
	late  error // of what blue tried to apply behind green
}

// An applying is a way to apply a plan.
type applying struct {
	name  string
	safe  bool
	inUse bool // the clean-up spares the plan that is applied
	apply func(r *rollout, who string) error
}

var pointer = catalog.JSON[string]("active")

func ways() []applying {
	set := func(r *rollout, who string) error {
		r.zone.active = who
		return nil
	}
	checked := func(r *rollout, who string) error {
		if r.newer[who] {
			return errors.New("a newer plan is applied")
		}
		return set(r, who)
	}
	return []applying{
		{name: "whoever is last", apply: set},
		{name: "checked before", apply: checked},
		{name: "checked before, and the applied plan is spared", apply: checked, inUse: true},
		{name: "by a gate", safe: true, apply: func(r *rollout, who string) error {
			admitted, err := r.gate.Admit(r.t.Context(), "zone", r.token[who])
			if err != nil {
				return err
			}
			defer admitted.Release()
			return set(r, who)
		}},
		{name: "in a commit of the catalog, from which the zone is served", safe: true, apply: func(r *rollout, who string) error {
			var now string
			err := r.holds[who].Update(r.t.Context(), func(tx *catalog.Tx) error { return pointer.Set(tx, "zone", who) })
			rerr := catalog.Snapshot(r.t.Context(), r.store, catalog.Config{}, func(_ driver.Head, rd *catalog.Reader) (err error) {
				now, _, err = pointer.Get(rd, "zone")
				return err
			})
			r.zone.active = now
			return errors.Join(err, rerr)
		}},
	}
}

func TestADelayedWorkerThatAppliesAnOldPlanIsRefusedByItsToken(t *testing.T) {
	t.Parallel()
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			outages, refused := 0, 0
			for _, order := range orders.Merges(orders.Steps("blue", "check", "apply", "clean"), orders.Steps("green", "claim", "check", "apply", "clean")) {
				synctest.Test(t, func(t *testing.T) {
					r := newRollout(t, w)
					for _, s := range order {
						r.play(s)
					}
					r.end(order)
					if r.dark {
						outages++
					}
					if r.late != nil {
						refused++
					}
				})
			}
			t.Logf("%d outages, %d late plans refused", outages, refused)
			require.Equal(t, w.safe, outages == 0, "a naive way must be found to fail")
			require.Equal(t, w.safe, refused > 0)
		})
	}
}

func newRollout(t *testing.T, w applying) *rollout {
	r := &rollout{
		t: t, way: w, zone: zone{plans: map[string]reap.Item{}}, store: memory.New(),
		token: map[string]fence.Token{}, holds: map[string]*catalog.Catalog{}, newer: map[string]bool{},
	}
	var err error
	r.gate, err = fence.NewGate(fence.GateConfig{Newest: catalog.NewestToken(r.store, catalog.Config{})})
	require.NoError(t, err)
	r.claim("blue", 1)
	return r
}

// claim takes the token, under which the plan is made.
func (r *rollout) claim(who string, g generation.Generation) {
	c, err := catalog.Open(r.t.Context(), r.store.Open(), catalog.Config{Generation: g})
	require.NoError(r.t, err)
	r.holds[who], r.token[who] = c, c.Token()
	r.zone.plans[who] = reap.Item{ID: who, Made: c.Token(), At: old}
}

// play plays a step, and looks whether the name has records afterwards.
func (r *rollout) play(s orders.Step) {
	switch s.What {
	case "claim":
		r.claim(s.Who, 2)
	case "check":
		r.newer[s.Who] = s.Who == "blue" && r.zone.active == "green"
	case "apply":
		behind := s.Who == "blue" && r.zone.active == "green"
		err := r.way.apply(r, s.Who)
		if behind && r.way.safe {
			r.late = err
			require.ErrorIs(r.t, err, fence.ErrFenced)
		}
	case "clean":
		p := reap.Policy{Keep: reap.KeepNone}
		if r.way.inUse {
			p.InUse = func(_ context.Context, plan reap.Item) (bool, error) { return plan.ID == r.zone.active, nil }
		}
		_, err := reap.Pass(r.t.Context(), r.zone.source(), r.token[s.Who], p)
		require.NoError(r.t, err)
	}
	r.dark = r.dark || r.zone.isDark()
}

// end checks that a guarded rollout ends with the newest plan.
func (r *rollout) end(order []orders.Step) {
	if r.way.safe {
		require.False(r.t, r.dark, "%v", order)
		require.Equal(r.t, "green", r.zone.active, "%v", order)
		require.Equal(r.t, []string{"green"}, keys(r.zone.plans), "%v", order)
	}
	require.NoError(r.t, r.gate.Close())
	for _, c := range r.holds {
		_ = c.Close() // a fenced one says so
	}
}

func keys(plans map[string]reap.Item) (all []string) {
	for id := range plans {
		all = append(all, id)
	}
	slices.Sort(all)
	return all
}
