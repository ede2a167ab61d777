package work

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
)

// A Report says what one pass has found and done.
type Report struct {
	Number  int           `json:"number"` // from 1, since the Queue began
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took_ns"`
	Trigger string        `json:"trigger"` // open, commit, return, time or asked

	// What was found is the sum of these.
	Running    int `json:"running"`     // already, before the pass
	LostClaims int `json:"lost_claims"` // claimed by a commit whose answer was lost; started now
	Claimed    int `json:"claimed"`     // and started
	Died       int `json:"died"`        // moved to the dead list in place of a run
	Waiting    int `json:"waiting"`     // due, without a free slot or a commit
	Unknown    int `json:"unknown"`     // of a kind that this holder does not know
	Stranded   int `json:"stranded"`    // pinned to a generation or member that is gone
}

// Found returns how many jobs the pass has looked at.
func (r Report) Found() int {
	return r.Running + r.LostClaims + r.Claimed + r.Died + r.Waiting + r.Unknown + r.Stranded
}

// A Failure is a run that has failed.
type Failure struct {
	Number  uint64        `json:"number"`
	ID      ID            `json:"id"`
	Kind    string        `json:"kind"`
	Key     string        `json:"key,omitempty"`
	Attempt int           `json:"attempt"`
	Error   string        `json:"error"`
	At      time.Time     `json:"at"`
	Token   fence.Token   `json:"token"`
	Took    time.Duration `json:"took_ns"`
	Dead    bool          `json:"dead,omitempty"` // the job went to the dead list
}

// Info is one job as it stands.
type Info struct {
	ID       ID          `json:"id"`
	Kind     string      `json:"kind"`
	Key      string      `json:"key,omitempty"`
	State    State       `json:"state"` // empty: it is dead
	Priority int         `json:"priority,omitempty"`
	Made     fence.Token `json:"made,omitzero"`
	MadeAt   time.Time   `json:"made_at"`
	Due      time.Time   `json:"due"` // when it was first due
	Owner    string      `json:"owner,omitempty"`
	From     string      `json:"from,omitempty"` // from whom it was reassigned
	Ref      string      `json:"ref,omitempty"`
	Size     int         `json:"payload_bytes"`
	Left     int         `json:"progress_bytes,omitempty"`

	Claim       fence.Token `json:"claim,omitzero"`
	At          time.Time   `json:"at,omitzero"` // of the newest claim or failure
	Attempt     int         `json:"attempt,omitempty"`
	Interrupted int         `json:"interrupted,omitempty"`
	Crashed     int         `json:"crashed,omitempty"`
	NotBefore   time.Time   `json:"not_before,omitzero"`
	Error       string      `json:"error,omitempty"`

	Reason Reason    `json:"reason,omitempty"` // why it is dead
	Text   string    `json:"text,omitempty"`
	DeadAt time.Time `json:"dead_at,omitzero"`

	Payload []byte `json:"payload,omitempty"` // only of Find
}

// Blockage is a key whose jobs wait for one of them.
type Blockage struct {
	Kind    string    `json:"kind"`
	Key     string    `json:"key"`
	Behind  ID        `json:"behind"`
	Jobs    int       `json:"jobs"` // that wait
	State   State     `json:"state"`
	Attempt int       `json:"attempt"`
	Error   string    `json:"error,omitempty"`
	Since   time.Time `json:"since"` // when the oldest of those that wait was first due
}

// KindStatus is what the jobs of one kind do.
type KindStatus struct {
	Name    string        `json:"name"`
	Known   bool          `json:"known"` // the holder runs it
	States  map[State]int `json:"states"`
	Dead    int           `json:"dead"`
	Totals  Totals        `json:"totals"`
	Since   Totals        `json:"since_open"` // by the holder of Status.Token
	Stale   time.Duration `json:"stale_ns"`
	Slow    time.Duration `json:"slow_ns"`
	Oldest  *Info         `json:"oldest,omitempty"`  // of those that are due and don't run, the one that was due first
	Slowest *Info         `json:"slowest,omitempty"` // of those that run, the one that has for longest
}

// A Status says what the jobs of a catalog do.
type Status struct {
	At       time.Time    `json:"at"`
	Revision uint64       `json:"revision"`
	Token    fence.Token  `json:"token,omitzero"`
	Holder   fence.Holder `json:"holder"`

	Live   int           `json:"live"` // the sum of States
	States map[State]int `json:"states"`
	Dead   int           `json:"dead"`
	Broken []string      `json:"broken,omitempty"` // entries that can't be read, 128 at most

	Kinds     []KindStatus `json:"kinds"`
	Totals    Totals       `json:"totals"`
	Since     Totals       `json:"since_open"`
	Blocked   []Blockage   `json:"blocked,omitempty"`   // 128 at most, the longest first
	Failures  []Failure    `json:"failures,omitempty"`  // the newest 128, newest first
	Takeovers []Takeover   `json:"takeovers,omitempty"` // likewise

	// Pass is the newest one; only the Queue itself knows it.
	Pass *Report `json:"last_pass,omitempty"`
}

// Read derives what the jobs in s do, for whoever holds the token: in s a *Reader of
// the holder, of a follower, or of catalog.Snapshot. Head is the head that s is of.
// It writes nothing and needs no token. It reads every job.
func Read(s catalog.Source, head Head, now time.Time) (Status, error) {
	b, records, err := open(s, head, now)
	if err != nil {
		return Status{}, err
	}
	return b.status(s, head, records, now)
}

// open reads every job, as the holder of head sees them.
func open(s catalog.Source, head Head, now time.Time) (*book, map[string]kindRecord, error) {
	var known []Kind
	records := map[string]kindRecord{}
	err := kinds.Scan(s, "", func(name string, rec kindRecord) bool {
		records[name] = rec
		if rec.Token == head.Token {
			known = append(known, rec.kind(name))
		}
		return true
	})
	if err != nil {
		return nil, nil, err
	}
	b := newBook(head.Token, head.Holder.Name, known)
	return b, records, b.load(s, now)
}

// Head is what Status needs of a catalog's head.
type Head struct {
	Revision uint64
	Token    fence.Token
	Holder   fence.Holder
}

// status reads what the book does not keep, and sums up.
func (b *book) status(s catalog.Source, head Head, records map[string]kindRecord, now time.Time) (Status, error) {
	b.tick(now)
	st := Status{At: now, Revision: head.Revision, Token: head.Token, Holder: head.Holder, States: zeroStates()}
	byKind := map[string]*KindStatus{}
	of := func(name string) *KindStatus {
		k := byKind[name]
		if k == nil {
			rec := records[name]
			k = &KindStatus{Name: name, States: zeroStates(), Stale: rec.Stale, Slow: rec.Slow, Known: rec.Token == head.Token && !head.Token.IsZero()}
			byKind[name] = k
		}
		return k
	}
	for name := range records {
		of(name)
	}
	b.countStates(&st, of, now)
	b.countBroken(&st)
	if err := sumUp(s, &st, of, records); err != nil {
		return st, err
	}
	for _, name := range slices.Sorted(maps.Keys(byKind)) {
		st.Kinds = append(st.Kinds, *byKind[name])
	}
	st.Blocked = b.blockages(now)
	st.Broken = slices.Sorted(maps.Keys(b.broken))
	st.Broken = st.Broken[:min(len(st.Broken), kept)]
	return st, b.details(s, &st)
}

func zeroStates() map[State]int {
	states := map[State]int{}
	for _, s := range States() {
		states[s] = 0
	}
	return states
}

// countStates counts the states of all jobs, and finds the oldest and slowest.
func (b *book) countStates(st *Status, of func(string) *KindStatus, now time.Time) {
	for _, it := range b.items {
		state := b.state(it, now)
		k := of(it.shelf.Name)
		st.Live++
		st.States[state]++
		k.States[state]++
		switch {
		case state == Running:
			if k.Slowest == nil || it.run.At.Before(k.Slowest.At) {
				k.Slowest = &Info{ID: it.id, State: state, At: it.run.At}
			}
		case !it.later(now.UnixNano()):
			if k.Oldest == nil || time.Unix(0, it.since).Before(k.Oldest.Due) {
				k.Oldest = &Info{ID: it.id, State: state, Due: time.Unix(0, it.since)}
			}
		}
	}
}

// countBroken counts the jobs of which not even the kind can be read.
func (b *book) countBroken(st *Status) {
	for entry := range b.broken {
		if strings.HasPrefix(entry, jobs.Name()+" ") {
			st.Live++
			st.States[Broken]++
		}
	}
}

// sumUp reads the totals, the dead list and the rings.
func sumUp(s catalog.Source, st *Status, of func(string) *KindStatus, records map[string]kindRecord) error {
	err := totals.Scan(s, "", func(name string, t Totals) bool {
		k := of(name)
		k.Totals, k.Since = t, t.minus(records[name].Opened)
		st.Totals, st.Since = st.Totals.plus(t), st.Since.plus(k.Since)
		return true
	})
	if err != nil {
		return err
	}
	if err := dead.Scan(s, "", func(_ string, rec deadRecord) bool { of(rec.Job.Kind).Dead++; st.Dead++; return true }); err != nil {
		return err
	}
	if st.Failures, err = Failures(s); err != nil {
		return err
	}
	if err := takeovers.Scan(s, "", func(_ string, t Takeover) bool { st.Takeovers = append(st.Takeovers, t); return true }); err != nil {
		return err
	}
	slices.SortFunc(st.Takeovers, func(x, y Takeover) int { return cmp.Compare(y.Number, x.Number) })
	return nil
}

// Failures returns the newest 128 failures, newest first.
func Failures(s catalog.Source) (all []Failure, err error) {
	err = failures.Scan(s, "", func(_ string, f Failure) bool { all = append(all, f); return true })
	slices.SortFunc(all, func(x, y Failure) int { return cmp.Compare(y.Number, x.Number) })
	return all, err
}

// details fills in the jobs that were found.
func (b *book) details(s catalog.Source, st *Status) error {
	for i := range st.Kinds {
		for _, info := range []**Info{&st.Kinds[i].Oldest, &st.Kinds[i].Slowest} {
			if *info == nil {
				continue
			}
			full, found, err := find(s, (*info).ID)
			if err != nil || !found {
				return err
			}
			full.State, full.Payload = (*info).State, nil
			*info = &full
		}
	}
	return nil
}

// blockages returns the keys in which jobs wait for one another, the longest first.
func (b *book) blockages(now time.Time) (all []Blockage) {
	for _, s := range b.kinds {
		for _, l := range s.lanes {
			head := l.items[0]
			if l.shelf.Order == Latest && l.active != nil {
				head = l.active
			}
			bl := Blockage{Kind: s.Name, Key: l.key, Behind: head.id, State: b.state(head, now), Attempt: head.run.Attempt, Error: head.run.Error}
			since := now.UnixNano()
			for _, it := range l.items {
				if b.state(it, now) == Blocked {
					bl.Jobs++
					since = min(since, it.since)
				}
			}
			if bl.Jobs > 0 {
				bl.Since = time.Unix(0, since)
				all = append(all, bl)
			}
		}
	}
	slices.SortFunc(all, func(x, y Blockage) int {
		return cmp.Or(cmp.Compare(y.Jobs, x.Jobs), cmp.Compare(x.Behind, y.Behind))
	})
	return all[:min(len(all), kept)]
}

// status says what the jobs do, as the dispatcher sees them.
func (d *dispatcher) status() (Status, error) {
	for d.unread != "" && d.c.Err() == nil {
		d.readOn()
	}
	now := d.catchUp()
	var st Status
	err := d.c.View(func(r *catalog.Reader) error {
		records := map[string]kindRecord{}
		err := kinds.Scan(r, "", func(name string, rec kindRecord) bool { records[name] = rec; return true })
		if err != nil {
			return err
		}
		claim := d.c.Claim()
		st, err = d.book.status(r, Head{Revision: d.c.Head().Revision, Token: claim.Token, Holder: claim.Holder}, records, now)
		return err
	})
	last := d.last
	st.Pass = &last
	return st, err
}
