package catalog

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a transaction reads is held against what a second reading of the same
// finds: where that differs, the change in between must count as touching.
func TestAReadSetIsTouchedByEveryChangeThatASecondReadingWouldSee(t *testing.T) {
	key := func() string { return fmt.Sprintf("k%02d", rand.IntN(40)) }
	touched, seen := 0, 0
	for range 3000 {
		base := newState().draft()
		for range rand.IntN(20) {
			base.apply(Change{Collection: "c", Key: key(), Value: []byte("1")})
		}
		var script []func(*Tx) string
		for range 1 + rand.IntN(4) {
			if from, most := key(), rand.IntN(4); rand.IntN(2) == 0 {
				script = append(script, func(tx *Tx) (read string) {
					n := 0
					_ = Bytes("c").Scan(tx, from, func(k string, v []byte) bool { read += k + string(v) + " "; n++; return n <= most })
					return read
				})
			} else {
				script = append(script, func(tx *Tx) string {
					v, ok, _ := Bytes("c").Get(tx, from)
					return fmt.Sprint(string(v), ok)
				})
			}
		}
		reading := func(s *state, reads readSet) (all []string) {
			tx := &Tx{draft: s.draft(), reads: reads}
			for _, read := range script {
				all = append(all, read(tx))
			}
			return all
		}
		reads := make(readSet)
		before := reading(base.state, reads)
		reads.seal()
		change := Change{Collection: "c", Key: key(), Value: []byte("2"), Delete: rand.IntN(3) == 0}
		after := base.state.draft()
		after.apply(change)
		if fmt.Sprint(before) != fmt.Sprint(reading(after.state, nil)) {
			seen++
			require.True(t, reads.touched(change.Collection, change.Key), "%v: %v", change, reads["c"])
		}
		if reads.touched(change.Collection, change.Key) {
			touched++
		}
	}
	require.Positive(t, seen)
	require.Less(t, touched, 2900, "everything counts as touched")
}

func TestAReadSetOfTooManyReadsCountsAsAll(t *testing.T) {
	reads := make(readSet)
	for n := range maxReads {
		reads.key("c", fmt.Sprint(n))
	}
	require.False(t, reads.touched("c", "other"))
	reads.scan("c", "z")
	reads.key("d", "k")
	require.True(t, reads.touched("c", "other"))
	require.False(t, reads.touched("d", "other"))
}

func TestAScanThatNeverEndsCountsAsRead(t *testing.T) {
	base := newState().draft()
	for _, key := range []string{"a", "b", "c"} {
		base.apply(Change{Collection: "c", Key: key})
	}
	reads := make(readSet)
	tx := &Tx{draft: base.state.draft(), reads: reads}
	next, stop := iter.Pull(func(yield func(string) bool) {
		_ = Bytes("c").Scan(tx, "a", func(key string, _ []byte) bool { return yield(key) })
	})
	key, _ := next()
	require.Equal(t, "a", key)
	_, _, err := tx.result(nil) // the migration returns, and has forgotten to stop
	require.NoError(t, err)
	reads.seal()
	stop()
	require.True(t, reads.touched("c", "a"))
	require.True(t, reads.touched("c", "b"), "what the Tx does beyond its end has changed what it had read")
}

func TestATraceThatMissedCommitsHoldsNoMore(t *testing.T) {
	for name, spoil := range map[string]func(*trace){
		"a snapshot took the place of commits":   (*trace).spoil,
		"more was touched than a trace can keep": func(tr *trace) { tr.touched = make(map[place]struct{}); fill(tr) },
		"a commit during the run":                func(tr *trace) { tr.apply(Change{Collection: "c", Key: "k"}) },
	} {
		tr := newTrace()
		require.False(t, tr.holds(), "the run has not ended")
		spoil(tr)
		reads := make(readSet)
		reads.key("c", "k")
		tr.finish(reads)
		require.False(t, tr.holds(), name)
	}
	tr := newTrace()
	tr.apply(Change{Collection: "c", Key: "other"})
	reads := make(readSet)
	reads.key("c", "k")
	tr.finish(reads)
	require.True(t, tr.holds())
	tr.apply(Change{Collection: "c", Key: "other"})
	require.True(t, tr.holds())
	tr.apply(Change{Collection: "c", Key: "k"})
	require.False(t, tr.holds(), "a commit behind the run")
}

func fill(tr *trace) {
	for n := range maxTouched + 1 {
		tr.apply(Change{Collection: "other", Key: fmt.Sprint(n)})
	}
}
