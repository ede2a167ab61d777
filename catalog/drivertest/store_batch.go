package drivertest

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func batchRules() []rule {
	rules := []rule{
		{"batch-pages", "NotesAfter gives the notes of a prefix behind a key, in order, n at most, and says whether there are more", batchPages},
		{"batch-is-bounded", "NotesAfter gives fewer notes if they are large, and one at least", batchIsBounded},
		{"batch-is-removed", "RemoveNotes removes the notes that are at their versions, and leaves the others", batchIsRemoved},
		{"batch-moves-no-head", "RemoveNotes moves neither head nor log", batchMovesNoHead},
	}
	for i, r := range rules {
		rules[i].test = func(b *bench) {
			if _, ok := b.s.(driver.NoteBatcher); !ok {
				b.Log("the store is no driver.NoteBatcher")
				return
			}
			r.test(b)
		}
	}
	return rules
}

func (b *bench) notesAfter(prefix, after string, n int) ([]driver.Note, bool) {
	b.Helper()
	notes, more, err := b.s.(driver.NoteBatcher).NotesAfter(b.ctx, prefix, after, n)
	require.NoError(b, err)
	return notes, more
}

// pages reads all notes of a prefix, n at a time.
func (b *bench) pages(prefix string, n int) (all []driver.Note) {
	b.Helper()
	after := ""
	for {
		notes, more := b.notesAfter(prefix, after, n)
		require.LessOrEqual(b, len(notes), n)
		all = append(all, notes...)
		if !more {
			return all
		}
		require.NotEmpty(b, notes, "more than none behind %q", after)
		after = notes[len(notes)-1].Key
	}
}

func batchPages(b *bench) {
	require.Empty(b, b.pages("", 2), "an empty board")
	b.postAll(keys())
	for _, prefix := range []string{"", "a", "a%", "ä", "馬", "a\U0010FFFF", "0", "z", "a/", "nowhere", "\x7f", "~"} {
		want := append([]driver.Note(nil), ReadNotes(b, b.s, prefix)...) // none is nil
		for _, n := range []int{2, 100} {
			require.Equal(b, want, b.pages(prefix, n), "prefix %q, %d at a time", prefix, n)
		}
	}
	notes, more := b.notesAfter("a", "zz", 5)
	require.Empty(b, notes, "behind all of the prefix")
	require.False(b, more)
	notes, more = b.notesAfter("b", "A", 1)
	require.Equal(b, []string{"b*"}, keysOf(notes), "after a key before all of the prefix")
	require.True(b, more)
}

func batchIsBounded(b *bench) {
	large := bytes.Repeat([]byte("x"), b.s.Limits().Note)
	if len(large) > affordable {
		b.Skipf("NOT CHECKED: a note limit of %d bytes is too large to try", len(large))
	}
	many := driver.NotesBatch/len(large) + 2
	for i := range many {
		b.post(fmt.Sprintf("n%03d", i), string(large), 0)
	}
	notes, more := b.notesAfter("n", "", many)
	require.True(b, more)
	require.NotEmpty(b, notes)
	require.LessOrEqual(b, len(notes)*len(large), driver.NotesBatch)
	require.Len(b, b.pages("n", many), many)
}

func (b *bench) removeNotes(notes ...driver.Note) {
	b.Helper()
	require.NoError(b, b.s.(driver.NoteBatcher).RemoveNotes(b.ctx, notes))
}

func batchIsRemoved(b *bench) {
	b.removeNotes(driver.Note{Key: "nowhere", Version: 1})
	var gone, left []driver.Note
	for i := range 300 {
		n := b.post(fmt.Sprintf("gone%d", i), "v", 0)
		n.Value = nil
		gone = append(gone, n)
	}
	for i := range 3 {
		stale := b.post(fmt.Sprintf("left%d", i), "v", 0)
		left = append(left, b.post(stale.Key, "w", stale.Version))
		gone = slices.Insert(gone, 70*i, driver.Note{Key: stale.Key, Version: stale.Version})
	}
	gone = append(gone, driver.Note{Key: "gone", Version: gone[0].Version}, driver.Note{Key: "nowhere", Version: 7})
	for range 2 { // the second time they are gone
		b.removeNotes(gone...)
		require.Equal(b, left, ReadNotes(b, b.another(), ""))
	}
	b.removeNotes()
	again := b.post("gone1", "v", 0)
	b.removeNotes(gone...)
	require.Equal(b, again, ReadNotes(b, b.another(), "gone")[0], "a note that was made again is another version")
}

func batchMovesNoHead(b *bench) {
	Append(b, b.s, Install(b, b.s, 1), []byte("one"))
	before := b.picture()
	b.removeNotes(b.post("k", "v", 0), b.post("l", "v", 0))
	b.unchanged(before, "notes that came and went")
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	kept := b.post("k", "v", 0)
	err := b.s.(driver.NoteBatcher).RemoveNotes(ctx, []driver.Note{kept})
	b.classified(err, "RemoveNotes whose context has ended")
	_, _, err = b.s.(driver.NoteBatcher).NotesAfter(ctx, "", "", 1)
	b.classified(err, "NotesAfter whose context has ended")
}
