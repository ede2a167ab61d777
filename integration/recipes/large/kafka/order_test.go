package kafka_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/internal/orders"
)

// Every merge of the old holder's steps with {claim, init, confirm, write} of the new
// one. What the old one commits behind the new one's confirmation, which begins its
// work, is stale.
func TestInNoOrderOfStepsDoesKafkaAcceptAStaleWrite(t *testing.T) {
	t.Parallel()
	addrs := startKafka(t)
	for name, way := range map[string]struct {
		old    []string
		id     bool
		guards bool
	}{
		"init, then confirm":  {[]string{"init", "confirm", "produce", "commit"}, true, true},
		"confirm, then init":  {[]string{"confirm", "init", "produce", "commit"}, true, false},
		"init alone":          {[]string{"init", "produce", "commit"}, true, false},
		"no transactional id": {[]string{"init", "confirm", "produce", "commit"}, false, false},
	} {
		stale, played, useful := 0, 0, 0
		for _, order := range orders.Merges(orders.Steps("old", way.old...), orders.Steps("new", "claim", "init", "confirm", "write")) {
			played++
			id := ""
			if way.id {
				id = fmt.Sprint(name, played)
			}
			accepted, late := play(t, addrs, id, order)
			if accepted {
				useful++
			}
			if late {
				stale++
				require.False(t, way.guards, "%s: %v", name, order)
			}
		}
		t.Logf("%s: %d of %d orders accepted a stale write, %d one in time", name, stale, played, useful-stale)
		require.Equal(t, way.guards, stale == 0, name)
		require.Positive(t, useful-stale, name)
	}
}

// play plays an order. It reports whether the old holder's write was accepted, and
// whether that was behind the beginning of the new one's work.
func play(t *testing.T, addrs []string, id string, order []orders.Step) (accepted, late bool) {
	t.Helper()
	ctx, store := t.Context(), memory.New()
	old, next := &producer{addrs: addrs, id: id, cat: claim(t, store, 7)}, &producer{addrs: addrs, id: id}
	defer old.close()
	defer next.close()
	var ended error
	works := false
	steps := map[string]func(context.Context) error{
		"init": old.init, "confirm": old.confirm, "commit": old.commit,
		"produce": func(ctx context.Context) error { return old.produce(ctx, "old") },
	}
	for _, step := range order {
		switch {
		case step.Who == "old":
			if ended == nil {
				ended = steps[step.What](ctx)
			}
			if step.What == "commit" && ended == nil {
				accepted, late = true, works
			}
		case step.What == "claim":
			next.cat = claim(t, store, 8)
		case step.What == "init":
			require.NoError(t, next.init(ctx))
		case step.What == "confirm":
			require.NoError(t, next.confirm(ctx))
			works = true
		default:
			require.NoError(t, next.write(ctx, "new"), "%v", order)
		}
	}
	return accepted, late
}
