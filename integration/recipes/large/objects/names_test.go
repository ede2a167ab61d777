package objects_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/orders"
)

// Objects that are written once, under a name that holds the token: two holders never
// write the same object, and the store needs no conditions. What counts is the name
// that the catalog has, which is committed behind the upload, by the holder alone. The
// object of a stale holder is never read, and removed some day.

// names has the names of the objects that count.
var names = catalog.Bytes("objects")

// A writer uploads objects and publishes their names.
type writer struct {
	c    *server
	cat  *catalog.Catalog
	name func(t fence.Token, n int) string
	n    int
}

func byToken(t fence.Token, n int) string { return fmt.Sprintf("state/%v/%06d", t, n) }

func (w *writer) upload(ctx context.Context, data string) (name string, err error) {
	w.n++
	name = w.name(w.cat.Token(), w.n)
	_, err = w.c.put(ctx, name, strings.NewReader(data), len(data), false, "")
	return name, err
}

func (w *writer) publish(ctx context.Context, name string) error {
	return w.cat.Update(ctx, func(tx *catalog.Tx) error { return names.Set(tx, "state", []byte(name)) })
}

// read returns the data that count.
func (w *writer) read(ctx context.Context) (data string, err error) {
	var name []byte
	err = w.cat.View(func(r *catalog.Reader) (err error) { name, _, err = names.Get(r, "state"); return err })
	if err == nil {
		data, _, err = w.c.get(ctx, string(name))
	}
	return data, err
}

func claim(t *testing.T, store *memory.Store, g generation.Generation) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: g})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Every merge of {upload, publish} of the old holder with {claim, upload, publish} of
// the new one. Under one name for both, the old one's upload replaces what the new one
// has published.
func TestInNoOrderOfStepsDoesAnObjectThatIsNamedByATokenReplaceANewerOne(t *testing.T) {
	t.Parallel()
	c := startServer(t)
	for how, name := range map[string]func(fence.Token, int) string{
		"a name by token": byToken,
		"one name":        func(fence.Token, int) string { return "state" },
	} {
		stale, played := 0, 0
		for _, order := range orders.Merges(orders.Steps("old", "upload", "publish"), orders.Steps("new", "claim", "upload", "publish")) {
			played++
			store, prefix, ctx := memory.New(), fmt.Sprintf("%s %d/", how, played), t.Context()
			under := func(tok fence.Token, n int) string { return prefix + name(tok, n) }
			sides := map[string]*writer{"old": {c: c, cat: claim(t, store, 7), name: under}, "new": {c: c, name: under}}
			last := map[string]string{}
			for _, step := range order {
				w := sides[step.Who]
				switch step.What {
				case "claim":
					w.cat = claim(t, store, 8)
				case "upload":
					uploaded, err := w.upload(ctx, step.Who)
					require.NoError(t, err)
					last[step.Who] = uploaded
				case "publish":
					err := w.publish(ctx, last[step.Who])
					require.True(t, err == nil || step.Who == "old" && sides["new"].cat != nil, "%v", err)
				}
			}
			require.ErrorIs(t, sides["old"].publish(ctx, "x"), fence.ErrSuperseded)
			data, err := sides["new"].read(ctx)
			require.NoError(t, err)
			if data != "new" {
				stale++
			}
		}
		t.Logf("%s: %d of %d orders lost the newer data", how, stale, played)
		require.Equal(t, 10, played)
		require.Equal(t, how == "a name by token", stale == 0, how)
	}
}
