package drivertest

import (
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func scratchRules() []rule {
	rules := []rule{
		{"scratch-is-apart", "a scratch place is empty, shows nothing of the catalog, and nothing that is written there shows in the catalog", scratchIsApart},
		{"scratch-is-one-place", "a scratch place has two stores or more, which see what the others write", scratchIsOnePlace},
		{"scratch-is-new", "every scratch place is another one, also while others are used", scratchIsNew},
		{"scratch-ends", "Discard closes the stores of a scratch place, and leaves the store and the catalog as they are", scratchEnds},
		{"scratch-closed", "Scratch of a closed store fails", scratchClosed},
	}
	for i, r := range rules {
		rules[i].test = func(b *bench) {
			if _, ok := b.s.(driver.Scratcher); !ok {
				b.Log("the store is no driver.Scratcher, and can't be checked before its first claim")
				return
			}
			r.test(b)
		}
	}
	return rules
}

// scratch opens a scratch place, which is discarded at the end of the rule.
func (b *bench) scratch() driver.Scratch {
	b.Helper()
	scratch, err := b.s.(driver.Scratcher).Scratch(b.ctx)
	require.NoError(b, err)
	b.Cleanup(func() { _ = scratch.Discard(Context(b)) })
	require.GreaterOrEqual(b, len(scratch.Stores), 2, "stores of a scratch place")
	return scratch
}

func scratchIsApart(b *bench) {
	none := b.picture()
	for range 2 {
		scratch := b.scratch()
		s := scratch.Stores[0]
		require.True(b, ReadHead(b, s).IsZero(), "the head of a scratch place")
		require.Empty(b, ReadNotes(b, s, ""), "the notes of a scratch place")
		head := Append(b, s, Install(b, s, 7), []byte("scratch"))
		_, err := s.Post(b.ctx, driver.Note{Key: "scratch", Value: []byte("v")})
		require.NoError(b, err)
		b.unchanged(none, "writes in a scratch place")
		require.NoError(b, scratch.Discard(b.ctx))
		b.unchanged(none, "Discard")
		if !ReadHead(b, b.s).IsZero() {
			break
		}
		Append(b, b.s, Install(b, b.s, 1), []byte("a")) // and once more beside a catalog that is there
		require.NotEqual(b, headText(b, head), headText(b, ReadHead(b, b.s)))
		_, err = b.s.Post(b.ctx, driver.Note{Key: "k", Value: []byte("v")})
		require.NoError(b, err)
		none = b.picture()
	}
}

func scratchIsOnePlace(b *bench) {
	scratch := b.scratch()
	head := Install(b, scratch.Stores[0], 1)
	for _, s := range scratch.Stores {
		SameHead(b, head, ReadHead(b, s))
		head = Append(b, s, head, []byte("a"))
	}
	for _, s := range scratch.Stores {
		SameHead(b, head, ReadHead(b, s))
	}
}

func scratchIsNew(b *bench) {
	one, two := b.scratch(), b.scratch()
	Install(b, one.Stores[0], 1)
	require.True(b, ReadHead(b, two.Stores[0]).IsZero())
	require.NoError(b, two.Discard(b.ctx))
	Install(b, one.Stores[1], 1)
}

func scratchEnds(b *bench) {
	scratch := b.scratch()
	Install(b, scratch.Stores[0], 1)
	require.NoError(b, scratch.Discard(b.ctx))
	for _, s := range scratch.Stores {
		_, err := s.Head(b.ctx)
		require.Error(b, err, "a read of a store of a scratch place that was discarded")
	}
	Append(b, b.s, Install(b, b.s, 1), []byte("a"))
}

func scratchClosed(b *bench) {
	s := b.another()
	require.NoError(b, s.Close())
	_, err := s.(driver.Scratcher).Scratch(b.ctx)
	require.Error(b, err)
	b.classified(err, "Scratch of a closed store")
}
