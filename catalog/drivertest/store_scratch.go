package drivertest

import (
	"slices"
	"time"

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
		{"left-lists", "Left lists the scratch places that are there, and writes nothing", leftLists},
		{"left-in-use", "RemoveLeft refuses what may be in use", leftInUse},
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

// cleaner returns the store as a cleaner, if what a process leaves can be left in it.
func (b *bench) cleaner() (driver.Cleaner, bool) {
	c, ok := b.s.(driver.Cleaner)
	if !ok {
		b.Log("the store is no driver.Cleaner: nothing can be left in it")
	}
	return c, ok
}

// leftPlaces returns the scratch places that Left lists.
func (b *bench) leftPlaces(c driver.Cleaner) []driver.Leftover {
	b.Helper()
	left, err := c.Left(b.ctx)
	require.NoError(b, err)
	return slices.DeleteFunc(left, func(l driver.Leftover) bool { return l.Kind != driver.ScratchPlace })
}

func leftLists(b *bench) {
	c, ok := b.cleaner()
	if !ok {
		return
	}
	require.Empty(b, b.leftPlaces(c), "where nobody has ever written")
	begun := time.Now().Add(-time.Second)
	noted, claimed := b.scratch(), b.scratch()
	_, err := noted.Stores[0].Post(b.ctx, driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(b, err)
	Install(b, claimed.Stores[0], 1)
	before := b.picture()
	left := b.leftPlaces(c)
	require.Len(b, left, 2, "one with a note only, and one with a claim")
	for _, l := range left {
		require.WithinRange(b, l.Made, begun, time.Now().Add(time.Second))
	}
	b.unchanged(before, "Left")
	require.NoError(b, noted.Discard(b.ctx))
	require.Subset(b, left, b.leftPlaces(c)) // a user with few rights may not remove all of a place
}

func leftInUse(b *bench) {
	c, ok := b.cleaner()
	if !ok {
		return
	}
	scratch := b.scratch()
	head := Install(b, scratch.Stores[0], 1)
	left := b.leftPlaces(c)
	require.Len(b, left, 1)
	old := left[0]
	old.Made = time.Now().Add(-1000 * time.Hour) // a caller's word for it is not enough
	for _, l := range append(left, old) {
		removed, err := c.RemoveLeft(b.ctx, l)
		require.Error(b, err, "RemoveLeft of a place that was made just now")
		b.classified(err, "RemoveLeft of a place that was made just now")
		require.False(b, removed)
	}
	Append(b, scratch.Stores[1], head, []byte("a"))
}
