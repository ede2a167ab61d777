package drivertest

import (
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func noteRules() []rule {
	return []rule{
		{"note-is-created", "Post at version zero creates a note, which Notes gives with the version that Post returned", noteIsCreated},
		{"note-must-not-exist", "Post at version zero where there is a note wraps ErrConflict and writes nothing", noteMustNotExist},
		{"note-is-replaced", "Post replaces a note at its version, and at no other", noteIsReplaced},
		{"note-is-removed", "Post of a nil value removes the note at its version and returns zero", noteIsRemoved},
		{"note-versions-are-new", "a version that Post returned was never that of another write, also not of one since removed", noteVersionsAreNew},
		{"note-race", "of many Posts at one version exactly one lands", noteRace},
		{"note-limit", "a note at the limit is taken; above it the error wraps ErrTooLarge and nothing is written", noteLimit},
		{"note-moves-no-head", "a Post moves neither head nor log", noteMovesNoHead},
	}
}

func noteIsCreated(b *bench) {
	n := b.post("holder/1", "alive", 0)
	require.NotZero(b, n.Version)
	require.Equal(b, []driver.Note{n}, ReadNotes(b, b.another(), "holder/1"))
}

func noteMustNotExist(b *bench) {
	n := b.post("k", "first", 0)
	_, err := b.another().Post(b.ctx, driver.Note{Key: "k", Value: []byte("second")})
	b.conflict(err, "Post at version zero over a note")
	require.Equal(b, []driver.Note{n}, ReadNotes(b, b.s, "k"))
}

func noteIsReplaced(b *bench) {
	first := b.post("k", "first", 0)
	second := b.post("k", "second", first.Version)
	for what, version := range map[string]int64{"its older version": first.Version, "a version to come": second.Version + 1000, "zero": 0} {
		for _, value := range [][]byte{[]byte("x"), nil} {
			_, err := b.s.Post(b.ctx, driver.Note{Key: "k", Value: value, Version: version})
			b.conflict(err, "Post at "+what)
		}
	}
	_, err := b.s.Post(b.ctx, driver.Note{Key: "absent", Value: []byte("x"), Version: second.Version})
	b.conflict(err, "Post at a version where there is no note")
	require.Equal(b, []driver.Note{second}, ReadNotes(b, b.s, ""))
}

func noteIsRemoved(b *bench) {
	n, kept := b.post("k", "v", 0), b.post("k2", "kept", 0)
	version, err := b.s.Post(b.ctx, driver.Note{Key: "k", Version: n.Version})
	require.NoError(b, err)
	require.Zero(b, version)
	require.Equal(b, []driver.Note{kept}, ReadNotes(b, b.another(), ""))
	_, err = b.s.Post(b.ctx, driver.Note{Key: "k", Version: n.Version})
	b.conflict(err, "a second removal at the same version")
}

func noteVersionsAreNew(b *bench) {
	seen := make(map[int64]bool)
	fresh := func(n driver.Note) driver.Note {
		require.NotZero(b, n.Version)
		require.False(b, seen[n.Version], "version %d was given twice", n.Version)
		seen[n.Version] = true
		return n
	}
	for range 5 {
		first := fresh(b.post("k", "same", 0))
		second := fresh(b.post("k", "same", first.Version))
		_, err := b.s.Post(b.ctx, driver.Note{Key: "k", Version: second.Version})
		require.NoError(b, err)
		recreated := fresh(b.post("k", "same", 0))
		_, err = b.s.Post(b.ctx, driver.Note{Key: "k", Value: []byte("late"), Version: second.Version})
		b.conflict(err, "Post at the version of a note that was removed and made again")
		_, err = b.s.Post(b.ctx, driver.Note{Key: "k", Version: recreated.Version})
		require.NoError(b, err)
		fresh(b.post(strings.Repeat("other", 1+len(seen)), "same", 0))
	}
}

func noteRace(b *bench) {
	version := int64(0)
	for range 5 {
		var calls []<-chan error
		versions := make([]int64, 8)
		for i := range versions {
			s := b.another()
			calls = append(calls, async(func() (err error) {
				versions[i], err = s.Post(b.ctx, driver.Note{Key: "k", Value: []byte{byte(i)}, Version: version})
				return err
			}))
		}
		winner := b.oneWins(calls)
		version = versions[winner]
		want := []driver.Note{{Key: "k", Value: []byte{byte(winner)}, Version: version}}
		require.Equal(b, want, ReadNotes(b, b.s, "k"))
	}
}

func noteLimit(b *bench) {
	limit := b.s.Limits().Note
	require.Positive(b, limit)
	if limit > affordable {
		b.Skipf("NOT CHECKED: a note limit of %d bytes is too large to try", limit)
	}
	largest := pattern(limit)
	n := b.post("k", string(largest), 0)
	above := append(largest, 0)
	_, err := b.s.Post(b.ctx, driver.Note{Key: "k", Value: above, Version: n.Version})
	b.refused(err, driver.ErrTooLarge, "a note above the limit over another")
	_, err = b.s.Post(b.ctx, driver.Note{Key: "new", Value: above})
	b.refused(err, driver.ErrTooLarge, "a new note above the limit")
	notes := ReadNotes(b, b.another(), "")
	require.Len(b, notes, 1)
	require.Equal(b, n.Version, notes[0].Version)
	require.True(b, string(n.Value) == string(notes[0].Value), "the largest note, unchanged")
}

func noteMovesNoHead(b *bench) {
	Append(b, b.s, Install(b, b.s, 1), []byte("one"))
	before := b.picture()
	n := b.post("k", "v", 0)
	n = b.post("k", "w", n.Version)
	_, err := b.s.Post(b.ctx, driver.Note{Key: "k", Version: n.Version})
	require.NoError(b, err)
	b.unchanged(before, "a note that came and went")
}
