package work

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// Read derives what the jobs in s do, for whoever holds the token: in s a *Reader of
// the holder, of a follower, or of catalog.Snapshot. Head is the head that s is of.
// It writes nothing and needs no token. It reads every job. Entries that can't be
// read are counted and passed over.
func Read(s catalog.Source, head driver.Head, now time.Time) (Status, error) {
	r, err := newReading(s, head, now)
	if err != nil {
		return Status{}, err
	}
	return r.status()
}

// A reading derives a Status from a book and what the book does not keep.
type reading struct {
	*book
	s       catalog.Source
	now     time.Time
	records map[string]kindRecord
	opener  fence.Token      // of the newest Queue that has begun: whose kinds these are
	broken  map[string]error // also entries that are in no book
	kinds   map[string]*KindStatus
	st      Status

	takeovers []Takeover // newest first
}

// newReading reads every job, as the holder of head sees them. A holder whose Queue has
// not begun yet is taken to run the kinds of the holder before.
func newReading(s catalog.Source, head driver.Head, now time.Time) (*reading, error) {
	r := &reading{s: s, now: now}
	if err := r.readKinds(); err != nil {
		return nil, err
	}
	var known []Kind
	for name, rec := range r.records {
		if rec.Token == r.opener && !r.opener.IsZero() {
			known = append(known, rec.kind(name))
		}
	}
	b := newBook(head.Claim.Token, head.Claim.Holder.Name, known)
	if err := b.load(s, now); err != nil {
		return nil, err
	}
	r.begin(b, head)
	return r, nil
}

// begin takes the book that the status is derived from.
func (r *reading) begin(b *book, head driver.Head) {
	r.book = b
	b.tick(r.now)
	maps.Copy(r.broken, b.broken)
	r.st = Status{At: r.now, Revision: head.Revision, Token: head.Claim.Token, Holder: head.Claim.Holder, States: zeroStates(), Takeovers: r.takeovers}
	r.st.Unreadable, r.st.Broken, r.st.Kinds = map[string]int{}, []string{}, []KindStatus{} // in JSON, too, they are there
	r.kinds = map[string]*KindStatus{}
}

func (r *reading) readKinds() error {
	r.records, r.broken, r.takeovers = map[string]kindRecord{}, map[string]error{}, []Takeover{}
	if err := readAll(r, kinds, func(name string, rec kindRecord) { r.records[name] = rec }); err != nil {
		return err
	}
	if err := readAll(r, takeovers, func(_ string, t Takeover) { r.takeovers = append(r.takeovers, t) }); err != nil {
		return err
	}
	slices.SortFunc(r.takeovers, func(x, y Takeover) int { return cmp.Compare(y.Number, x.Number) })
	if len(r.takeovers) > 0 {
		r.opener = r.takeovers[0].Token
	}
	return nil
}

// readAll calls fn for every entry of a collection that can be read.
func readAll[V any](r *reading, c catalog.Collection[V], fn func(key string, v V)) error {
	return catalog.Bytes(c.Name()).Scan(r.s, "", func(key string, raw []byte) bool {
		var v V
		if err := json.Unmarshal(raw, &v); err != nil {
			r.broken[c.Name()+" "+key] = err
			return true
		}
		fn(key, v)
		return true
	})
}

// of returns the status of a kind.
func (r *reading) of(name string) *KindStatus {
	k := r.kinds[name]
	if k == nil {
		rec := r.records[name]
		k = &KindStatus{
			Name: name, Known: rec.Token == r.opener && !r.opener.IsZero(),
			States: zeroStates(), Stale: rec.Stale, Slow: rec.Slow, Urgent: map[State]*Info{},
		}
		r.kinds[name] = k
	}
	return k
}

func (r *reading) status() (Status, error) {
	for name := range r.records {
		r.of(name)
	}
	for _, it := range r.items {
		r.count(it)
	}
	if err := r.sumUp(); err != nil {
		return r.st, err
	}
	for _, name := range slices.Sorted(maps.Keys(r.kinds)) {
		k := r.kinds[name]
		for _, infos := range []map[State]*Info{k.Urgent, {"": k.Oldest}, {Running: k.Slowest}} {
			for _, info := range infos {
				r.fill(info)
			}
		}
		r.st.Kinds = append(r.st.Kinds, *k)
	}
	r.st.Blocked = r.blockages(r.now)
	r.listBroken()
	r.st.Live += r.st.Unreadable["jobs"]
	r.st.States[Broken] += r.st.Unreadable["jobs"]
	return r.st, nil
}

func zeroStates() map[State]int {
	states := map[State]int{}
	for _, s := range States() {
		states[s] = 0
	}
	return states
}

// count counts a job.
func (r *reading) count(it *item) {
	state, k := r.state(it, r.now), r.of(it.shelf.Name)
	r.st.Live++
	k.Live++
	r.st.States[state]++
	k.States[state]++
	if (state == Unknown || state == Stranded) && !it.run.Claim.IsZero() {
		r.st.Suspended++
		k.Suspended++
	}
	info := &Info{ID: it.id, State: state, Due: time.Unix(0, it.since).UTC(), At: it.run.At, Owner: it.owner()}
	urgent := it.priority >= 0
	switch {
	case state == Running:
		k.Slowest = older(k.Slowest, info, beganBefore)
		if urgent {
			k.Urgent[state] = older(k.Urgent[state], info, beganBefore)
		}
	case it.later(r.now.UnixNano()) || it.beingDone():
	default:
		k.Oldest = older(k.Oldest, info, dueBefore)
		if urgent {
			k.Urgent[state] = older(k.Urgent[state], info, dueBefore)
		}
	}
}

func dueBefore(a, b *Info) int   { return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.ID, b.ID)) }
func beganBefore(a, b *Info) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) }

func older(old, info *Info, before func(a, b *Info) int) *Info {
	if old != nil && before(old, info) < 0 {
		return old
	}
	return info
}

// beingDone reports whether the run of a newer job of the key does the item too.
func (it *item) beingDone() bool {
	if it.lane == nil || it.shelf.Order != Latest || it.lane.active == nil {
		return false
	}
	active := it.lane.active
	return it.id < active.id && !it.later(active.run.At.UnixNano())
}

// sumUp reads the totals, the dead list and the rings.
func (r *reading) sumUp() error {
	since := map[string]Totals{}
	if err := readAll(r, opened, func(name string, t Totals) { since[name] = t }); err != nil {
		return err
	}
	if err := readAll(r, totals, func(name string, t Totals) {
		k := r.of(name)
		k.Totals, k.Since = t, t.minus(since[name])
		r.st.Totals, r.st.Since = r.st.Totals.plus(t), r.st.Since.plus(k.Since)
	}); err != nil {
		return err
	}
	if err := readAll(r, dead, func(_ string, rec deadRecord) { r.countDead(rec) }); err != nil {
		return err
	}
	var err error
	r.st.Failures, err = r.failures()
	return err
}

// Failures returns the newest 128 failures, newest first.
func Failures(s catalog.Source) ([]Failure, error) {
	return (&reading{s: s, broken: map[string]error{}}).failures()
}

func (r *reading) failures() ([]Failure, error) {
	all := []Failure{}
	err := readAll(r, failures, func(_ string, f Failure) { all = append(all, f) })
	slices.SortFunc(all, func(x, y Failure) int { return cmp.Compare(y.Number, x.Number) })
	return all, err
}

func (r *reading) countDead(rec deadRecord) {
	k := r.of(rec.Job.Kind)
	r.st.Dead++
	k.Dead++
	if rec.Job.Priority < 0 {
		return
	}
	k.UrgentDead++
	if k.DeadSince.IsZero() || rec.At.Before(k.DeadSince) {
		k.DeadSince = rec.At
	}
}

// fill fills in a job that was found. One that can't be read keeps what is known.
func (r *reading) fill(info *Info) {
	if info == nil || info.Kind != "" {
		return
	}
	if full, found, err := find(r.s, info.ID); err == nil && found {
		full.State, full.Owner, full.Payload = info.State, info.Owner, nil
		*info = full
	}
}

// listBroken counts and names the entries that can't be read.
func (r *reading) listBroken() {
	for name, err := range r.broken {
		collection, _, _ := strings.Cut(name, " ")
		r.st.Unreadable[strings.TrimPrefix(collection, "fencepost.work.")]++
		r.st.Broken = append(r.st.Broken, clip(name+": "+err.Error(), maxError))
	}
	slices.Sort(r.st.Broken)
	r.st.Broken = r.st.Broken[:min(len(r.st.Broken), kept)]
}

// blockages returns the keys in which jobs wait for one another, those with the
// most jobs first.
func (b *book) blockages(now time.Time) []Blockage {
	all := []Blockage{}
	for _, s := range b.kinds {
		for _, l := range s.lanes {
			if bl := b.blockage(l, now); bl.Jobs > 0 {
				all = append(all, bl)
			}
		}
	}
	slices.SortFunc(all, func(x, y Blockage) int {
		return cmp.Or(cmp.Compare(y.Jobs, x.Jobs), cmp.Compare(x.Behind, y.Behind))
	})
	return all[:min(len(all), kept)]
}

// waitsFor returns the job that the others of a key wait for.
func (l *lane) waitsFor(now time.Time) *item {
	if l.shelf.Order == Latest {
		if l.active != nil {
			return l.active
		}
		for _, it := range l.items {
			if it.until > now.UnixNano() && it.until == l.until {
				return it // its retry
			}
		}
	}
	return l.items[0]
}

func (b *book) blockage(l *lane, now time.Time) Blockage {
	head := l.waitsFor(now)
	bl := Blockage{Kind: l.shelf.Name, Key: l.key, Behind: head.id, State: b.state(head, now), Attempt: head.run.Attempt, Error: head.run.Error}
	since := now.UnixNano()
	for _, it := range l.items {
		if b.state(it, now) == Blocked {
			bl.Jobs++
			since = min(since, it.since)
		}
	}
	bl.Since = time.Unix(0, since).UTC()
	return bl
}

// status says what the jobs do, as the dispatcher sees them.
func (d *dispatcher) status() (Status, error) {
	var st Status
	err := d.changes.View(func(taken []catalog.Change, s *catalog.Reader) error {
		r := &reading{s: s, now: d.now()}
		if err := r.readKinds(); err != nil {
			return err
		}
		d.book.apply(taken, r.now)
		d.next = d.book.tick(r.now)
		r.begin(d.book, d.c.Head())
		var err error
		st, err = r.status()
		return err
	})
	last := d.last
	st.Pass = &last
	return st, err
}
