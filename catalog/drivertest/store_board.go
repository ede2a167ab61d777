package drivertest

import (
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func boardRules() []rule {
	return []rule{
		{"notes-in-order", "Notes gives the notes in the order of their keys, byte by byte", notesInOrder},
		{"notes-by-prefix", "Notes gives the notes whose key begins with prefix, and no others", notesByPrefix},
		{"notes-of-any-bytes", "the value of a note is any bytes, and may be empty without being removed", notesOfAnyBytes},
		{"notes-are-the-readers", "what a reader or writer does to a value changes nothing on the board", notesAreTheReaders},
	}
}

// keys are awkward ones: letter case, wildcards, quotes, separators, other
// scripts, and the last rune there is.
func keys() []string {
	return []string{
		"a", "A", "a_", "ab", "a%b", "a%", "aXb", "a/b", "a/b/c", "a-b", "a.b", "a b", "B", "Z", "z", "z'--", `z"\`,
		"ä", "žluť", "馬", "a\U0010FFFF", "a\U0010FFFFb", "b*", "b?", "b[a]", "0", "10", "9",
	}
}

func (b *bench) postAll(keys []string) {
	b.Helper()
	for _, key := range keys {
		b.post(key, "at "+key, 0)
	}
}

func keysOf(notes []driver.Note) []string {
	var keys []string
	for _, n := range notes {
		keys = append(keys, n.Key)
	}
	return keys
}

func notesInOrder(b *bench) {
	b.postAll(keys())
	notes := ReadNotes(b, b.another(), "")
	require.Equal(b, slices.Sorted(slices.Values(keys())), keysOf(notes))
	for _, n := range notes {
		require.Equal(b, "at "+n.Key, string(n.Value))
	}
}

func notesByPrefix(b *bench) {
	require.Empty(b, ReadNotes(b, b.s, "a"), "an empty board")
	b.postAll(keys())
	for _, prefix := range append(keys(), "a/", "nowhere", "a\U0010FFFFbc", "z'") {
		var want []string
		for _, key := range slices.Sorted(slices.Values(keys())) {
			if len(key) >= len(prefix) && key[:len(prefix)] == prefix {
				want = append(want, key)
			}
		}
		require.Equal(b, want, keysOf(ReadNotes(b, b.s, prefix)), "prefix %q", prefix)
	}
}

func notesOfAnyBytes(b *bench) {
	for key, value := range map[string]string{"empty": "", "zero": "\x00", "text": "ž馬", "not text": "\xff\xfe\x00\xc3\x28'\"\\"} {
		n := b.post(key, value, 0)
		notes := ReadNotes(b, b.another(), key)
		require.Len(b, notes, 1, "the note at %q", key)
		require.Equal(b, value, string(notes[0].Value))
		require.Equal(b, n.Version, notes[0].Version)
	}
	require.Len(b, ReadNotes(b, b.s, ""), 4)
}

func notesAreTheReaders(b *bench) {
	value := []byte("as it was sent")
	_, err := b.s.Post(b.ctx, driver.Note{Key: "k", Value: value})
	require.NoError(b, err)
	clear(value)
	got := ReadNotes(b, b.s, "k")
	require.Equal(b, "as it was sent", string(got[0].Value))
	clear(got[0].Value)
	require.Equal(b, "as it was sent", string(ReadNotes(b, b.s, "k")[0].Value))
}
