package work

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
)

// A Takeover says what a holder found when it began, and how soon it went on with
// that.
type Takeover struct {
	Number uint64      `json:"number"`
	Token  fence.Token `json:"token"`
	From   fence.Token `json:"from,omitzero"` // the holder before that ran jobs; zero: there was none
	At     time.Time   `json:"at"`

	// Orphans are the jobs that were running under older tokens, and Recovered those
	// of them that run again, or went to the dead list, under this one.
	Orphans   int `json:"orphans"`
	Recovered int `json:"recovered"`
	// First and Last are how long behind At the first and the last of them were
	// claimed; zero if none was yet.
	First time.Duration `json:"first_ns,omitempty"`
	Last  time.Duration `json:"last_ns,omitempty"`
}

// Deploy reports whether the holder before was of another generation.
func (t Takeover) Deploy() bool {
	return !t.From.IsZero() && t.From.Generation != t.Token.Generation
}

// Cause says why the holder before ended: "deploy" if it was of another generation,
// "crash" if it was of the same one and left orphans, "restart" if it left none, and
// "first" if there was none.
func (t Takeover) Cause() string {
	switch {
	case t.From.IsZero():
		return "first"
	case t.Deploy():
		return "deploy"
	case t.Orphans > 0:
		return "crash"
	default:
		return "restart"
	}
}

// open writes which kinds this holder runs, and what it found: once for a token,
// and again if the kinds have changed.
func (d *dispatcher) open() error {
	var taken Takeover
	err := d.c.Update(d.writes, func(tx *catalog.Tx) error {
		if err := d.openKinds(tx); err != nil {
			return err
		}
		s, _, err := sequence.Get(tx, openSequence)
		if err != nil {
			return err
		}
		if taken, _, err = legible(takeovers.Get(tx, ring(s.Last, kept))); err != nil {
			return err
		}
		if taken.Token == tx.Token() {
			return giveBack(tx, time.Now())
		}
		sum, err := sumOf(tx)
		if err != nil {
			return err
		}
		n, err := take(tx, openSequence, 1)
		if err != nil {
			return err
		}
		taken = Takeover{Number: n, Token: tx.Token(), From: taken.Token, At: time.Now().UTC().Round(0), Orphans: int(sum.Claimed())}
		if err := openTotals(tx); err != nil {
			return err
		}
		return takeovers.Set(tx, ring(n, kept), taken)
	})
	if err == nil {
		d.taken = taken
	}
	return err
}

// giveBack gives back what an earlier Queue of this token has claimed, and of which it
// could not write what became: it was interrupted by a stop. The jobs are claimed anew,
// so that a run of that Queue which still goes on changes nothing.
func giveBack(tx *catalog.Tx, now time.Time) error {
	left := map[string]runRecord{}
	err := catalog.Bytes(runs.Name()).Scan(tx, "", func(key string, raw []byte) bool {
		var run runRecord
		if json.Unmarshal(raw, &run) == nil && run.Claim == tx.Token() {
			left[key] = run
		}
		return true
	})
	if err != nil {
		return err
	}
	sums := tally{}
	for _, key := range slices.Sorted(maps.Keys(left)) {
		job, _, _, err := readJob(tx, key)
		if err != nil {
			return err
		}
		sums.of(job.Kind).Released++
		if err := runs.Set(tx, key, left[key].ended(now).released()); err != nil {
			return err
		}
	}
	return sums.write(tx)
}

// sumOf returns the totals of all kinds.
func sumOf(s catalog.Source) (sum Totals, err error) {
	err = totals.Scan(s, "", func(_ string, t Totals) bool { sum = sum.plus(t); return true })
	return sum, err
}

func (d *dispatcher) openKinds(tx *catalog.Tx) error {
	if err := d.closeKinds(tx); err != nil {
		return err
	}
	for _, k := range d.cfg.Kinds {
		old, _, err := legible(kinds.Get(tx, k.Name))
		if err != nil {
			return err
		}
		rec := recordOf(k)
		if rec.Token = tx.Token(); rec == old {
			continue
		}
		if err := kinds.Set(tx, k.Name, rec); err != nil {
			return err
		}
	}
	return nil
}

// closeKinds notes that this holder runs some kinds no longer that an earlier Queue
// of its did.
func (d *dispatcher) closeKinds(tx *catalog.Tx) error {
	var failed error
	err := scanKinds(tx, func(name string, rec kindRecord) bool {
		known := slices.ContainsFunc(d.cfg.Kinds, func(k Kind) bool { return k.Name == name })
		if rec.Token != tx.Token() || known {
			return true
		}
		rec.Token = fence.Token{}
		failed = kinds.Set(tx, name, rec)
		return failed == nil
	})
	return errors.Join(err, failed)
}

// openTotals keeps the totals of every kind as they are when a holder begins, also
// of those that it does not run.
func openTotals(tx *catalog.Tx) error {
	var failed error
	err := totals.Scan(tx, "", func(kind string, t Totals) bool {
		failed = opened.Set(tx, kind, t)
		return failed == nil
	})
	return errors.Join(err, failed)
}

// scanKinds calls fn for every kind whose entry can be read. Status shows the others.
func scanKinds(s catalog.Source, fn func(name string, rec kindRecord) bool) error {
	return catalog.Bytes(kinds.Name()).Scan(s, "", func(name string, raw []byte) bool {
		var rec kindRecord
		return json.Unmarshal(raw, &rec) != nil || fn(name, rec)
	})
}

// legible returns what was read; nothing if it can't be.
func legible[V any](v V, found bool, err error) (V, bool, error) {
	if err != nil && found {
		return *new(V), false, nil
	}
	return v, found, err
}

func recordOf(k Kind) kindRecord {
	return kindRecord{
		Order: k.Order.String(), Pin: k.Pin.String(), TakeOver: k.Stranded == TakeOver, MaxPayload: k.MaxPayload,
		MaxQueued: k.MaxQueued, Attempts: k.MaxAttempts, Stale: k.Stale, Slow: k.Slow,
	}
}

// kind returns what a reader who is not the holder needs to know of a kind.
func (r kindRecord) kind(name string) Kind {
	k := Kind{Name: name, MaxPayload: r.MaxPayload, MaxQueued: r.MaxQueued, MaxAttempts: r.Attempts, Stale: r.Stale, Slow: r.Slow}
	for o := Any; o <= Latest; o++ {
		if o.String() == r.Order {
			k.Order = o
		}
	}
	if r.Pin == SameGeneration.String() {
		k.Pin = SameGeneration
	}
	if r.TakeOver {
		k.Stranded = TakeOver
	}
	return k
}

// writeTakeover counts n orphans that claims took, and returns the takeover as it
// is then.
func (d *dispatcher) writeTakeover(tx *catalog.Tx, n int, now time.Time) (Takeover, error) {
	next := d.taken
	if n == 0 {
		return next, nil
	}
	next.Recovered += n
	next.Last = max(1, now.Sub(next.At))
	if next.First == 0 {
		next.First = next.Last
	}
	return next, takeovers.Set(tx, ring(next.Number, kept), next)
}
