package work

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tidwall/btree"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// A book is an index of the jobs of a catalog, as one holder sees them: which may
// run, in which order, and from when on. It is built of entries and changes and
// nothing else, so that a job's state is derived and stored nowhere. It is used by
// one goroutine.
type book struct {
	token  fence.Token
	member string
	kinds  map[string]*shelf
	items  map[ID]*item
	held   map[ID]*item         // whose run has the token
	timers *btree.BTreeG[*item] // what may run at a time to come
	dirty  map[*lane]struct{}   // whose place in the queues has to be found
	broken map[string]error     // entries that can't be read, by collection and key
	unread string               // the key from which on jobs are still to be read; empty: all are

	unknown, stranded int
}

// A shelf keeps the jobs of one kind.
type shelf struct {
	Kind
	known bool
	jobs  int
	ready *btree.BTreeG[*item] // what may run now
	lanes map[string]*lane     // by key; of Each and Latest
}

// An item is a job in a book.
type item struct {
	id       ID
	shelf    *shelf
	key      string
	pinned   generation.Generation
	member   string
	due      int64 // before which it does not run, in ns since 1970; 0: at once
	since    int64 // when it was first due
	priority int
	stray    bool // it may not be run by this holder
	spoilt   bool // what became of it can't be read

	run   runRecord
	until int64 // when its retry is due; 0 if there is none

	lane *lane
	spot spot
	at   int64 // in timers
	rank int   // in ready
}

// nanos returns a time in ns since 1970. Times beyond the year 2262 are all the last one.
func nanos(t time.Time) int64 {
	if t.Unix() >= math.MaxInt64/int64(time.Second) {
		return math.MaxInt64
	}
	return t.UnixNano()
}

// A spot is where an item is queued.
type spot uint8

const (
	nowhere spot = iota
	inReady
	inTimers
)

func byRank(a, b *item) bool {
	if c := cmp.Compare(b.rank, a.rank); c != 0 {
		return c < 0
	}
	return a.id < b.id
}

func byTime(a, b *item) bool {
	if c := cmp.Compare(a.at, b.at); c != 0 {
		return c < 0
	}
	return a.id < b.id
}

func newSet(less func(a, b *item) bool) *btree.BTreeG[*item] {
	return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true, Degree: 16})
}

func newBook(token fence.Token, member string, known []Kind) *book {
	b := &book{
		token: token, member: member, kinds: map[string]*shelf{}, items: map[ID]*item{}, held: map[ID]*item{},
		timers: newSet(byTime), dirty: map[*lane]struct{}{}, broken: map[string]error{}, unread: firstEntry,
	}
	for _, k := range known {
		b.kinds[k.Name] = newShelf(k, true)
	}
	return b
}

func newShelf(k Kind, known bool) *shelf {
	return &shelf{Kind: k, known: known, ready: newSet(byRank), lanes: map[string]*lane{}}
}

// firstEntry is at or before the key of every job.
const firstEntry = "0"

// load reads every job.
func (b *book) load(s catalog.Source, now time.Time) error {
	b.unread = ""
	return b.loadSome(s, now, func(int) bool { return true })
}

// loadSome reads more of the jobs, in the order of their IDs, until more returns
// false of how many were read.
func (b *book) loadSome(s catalog.Source, now time.Time, more func(n int) bool) error {
	became, next, n := catalog.Bytes(runs.Name()), "", 0
	var failed error
	err := catalog.Bytes(jobs.Name()).Scan(s, b.unread, func(key string, raw []byte) bool {
		if !more(n) {
			next = key
			return false
		}
		n++
		b.add(key, raw)
		run, found, err := became.Get(s, key)
		if found {
			b.setRun(key, run, now)
		}
		failed = err
		return err == nil
	})
	if err = errors.Join(err, failed); err == nil {
		b.unread = next
	}
	return err
}

// apply makes the changes of commits.
func (b *book) apply(changes []catalog.Change, now time.Time) {
	for _, c := range changes {
		switch {
		case c.Collection == jobs.Name() && c.Delete:
			b.remove(c.Key)
		case c.Collection == jobs.Name() && !b.early(c):
			b.add(c.Key, c.Value)
		case c.Collection == runs.Name():
			b.setRun(c.Key, c.Value, now)
		}
	}
}

// early reports whether older jobs of a job's key may still be unread: then the job
// is read in its turn, since it must not run before them.
func (b *book) early(c catalog.Change) bool {
	if b.unread == "" || c.Key < b.unread {
		return false
	}
	var rec indexRecord
	if json.Unmarshal(c.Value, &rec) != nil {
		return false
	}
	s := b.kinds[rec.Kind]
	return s != nil && s.Order != Any
}

// An indexRecord is what a book needs of a jobRecord.
type indexRecord struct {
	Kind       string                `json:"kind"`
	Key        string                `json:"key"`
	Made       fence.Token           `json:"made"`
	MadeAt     time.Time             `json:"made_at"`
	RunAt      time.Time             `json:"run_at"`
	Again      time.Time             `json:"again"`
	Priority   int                   `json:"priority"`
	Member     string                `json:"member"`
	Generation generation.Generation `json:"generation"`
}

// spoilt notes that an entry can't be read. It stays where it is.
func (b *book) spoilt(collection, key string, err error) {
	b.broken[collection+" "+key] = err
}

// add enters a job, in place of what it was.
func (b *book) add(key string, raw []byte) {
	id, err := parseEntry(key)
	var rec indexRecord
	if err == nil {
		err = json.Unmarshal(raw, &rec)
	}
	if err != nil {
		b.spoilt(jobs.Name(), key, err)
		return
	}
	it := &item{
		id: id, shelf: b.shelf(rec.Kind), key: rec.Key, pinned: rec.Generation, member: rec.Member,
		since: nanos(latest(rec.MadeAt, rec.RunAt, rec.Again)), priority: rec.Priority,
	}
	if !rec.RunAt.IsZero() {
		it.due = nanos(rec.RunAt)
	}
	if old := b.items[id]; old != nil { // it was reassigned
		it.run, it.until, it.spoilt = old.run, old.until, old.spoilt
		b.drop(old)
		it.shelf = b.shelf(rec.Kind)
	}
	if it.pinned == 0 && it.shelf.Pin == SameGeneration {
		it.pinned = rec.Made.Generation
	}
	it.stray = it.shelf.known && b.elsewhere(it) && !(it.shelf.Stranded == TakeOver && b.gone(it))
	b.items[id] = it
	b.tally(it, 1)
	if it.shelf.known && (it.shelf.Order == Each || it.shelf.Order == Latest && !it.stray) {
		b.enterLane(it)
	}
	b.hold(it)
	b.place(it)
}

// shelf returns that of a kind.
func (b *book) shelf(kind string) *shelf {
	s := b.kinds[kind]
	if s == nil {
		s = newShelf(Kind{Name: kind}, false)
		b.kinds[kind] = s
	}
	return s
}

// tally counts an item, or counts it no longer.
func (b *book) tally(it *item, n int) {
	it.shelf.jobs += n
	switch {
	case !it.shelf.known:
		b.unknown += n
	case it.stray:
		b.stranded += n
	}
}

// hold notes whether the item's run has the token.
func (b *book) hold(it *item) {
	held := it.run.Claim == b.token && !b.token.IsZero()
	if held {
		b.held[it.id] = it
	} else {
		delete(b.held, it.id)
	}
	if l := it.lane; l != nil {
		if held {
			l.active = it
		} else if l.active == it {
			l.active = nil
		}
	}
}

// elsewhere reports whether a job is pinned to a generation or a member that does
// not hold the token.
func (b *book) elsewhere(it *item) bool {
	return it.pinned != 0 && it.pinned != b.token.Generation || it.member != "" && it.member != b.member
}

// gone reports whether the generation that a job is pinned to is over, or its member
// does not hold the token.
func (b *book) gone(it *item) bool { return it.pinned <= b.token.Generation }

// owner says to whom an item is pinned; empty if it is to nobody.
func (it *item) owner() string {
	switch {
	case it.member != "":
		return "member " + it.member
	case it.pinned != 0:
		return fmt.Sprintf("generation %d", it.pinned)
	default:
		return ""
	}
}

// remove takes a job out.
func (b *book) remove(key string) {
	id, err := parseEntry(key)
	if it := b.items[id]; err == nil && it != nil {
		b.drop(it)
	}
	delete(b.broken, jobs.Name()+" "+key)
}

func (b *book) drop(it *item) {
	b.unplace(it)
	delete(b.items, it.id)
	b.tally(it, -1)
	it.run = runRecord{}
	b.hold(it)
	if l := it.lane; l != nil {
		l.delete(it)
		if len(l.items) == 0 {
			delete(l.shelf.lanes, l.key)
			delete(b.dirty, l)
		} else {
			b.dirty[l] = struct{}{}
		}
	}
	if !it.shelf.known && it.shelf.jobs == 0 {
		delete(b.kinds, it.shelf.Name)
	}
}

// setRun enters what became of a job. A run without a job is none any more.
func (b *book) setRun(key string, raw []byte, now time.Time) {
	id, err := parseEntry(key)
	var rec runRecord
	if err == nil && raw != nil {
		err = json.Unmarshal(raw, &rec)
	}
	it := b.items[id]
	if err != nil {
		b.spoilt(runs.Name(), key, err)
		if it != nil {
			b.unplace(it)
			it.run, it.until, it.spoilt = runRecord{}, 0, true
			b.hold(it)
			b.place(it)
		}
		return
	}
	delete(b.broken, runs.Name()+" "+key)
	if it == nil {
		return
	}
	b.unplace(it)
	it.run, it.until, it.spoilt = rec, 0, false
	if !rec.NotBefore.IsZero() {
		// The wait is never longer than it was meant to be, whatever the clocks of two
		// holders say.
		it.until = min(nanos(rec.NotBefore), nanos(now.Add(rec.Wait)))
	}
	if it.lane != nil {
		it.lane.stale = true
	}
	b.hold(it)
	b.place(it)
}

// readyCount returns how many jobs, and lanes of jobs, may run now.
func (b *book) readyCount() (n int) {
	for _, s := range b.kinds {
		n += s.ready.Len()
	}
	return n
}

// tick moves what has become due to what may run, and returns when the next one
// does; 0 if there is none.
func (b *book) tick(now time.Time) (next int64) {
	for l := range b.dirty {
		b.placeLane(l)
	}
	clear(b.dirty)
	for {
		it, ok := b.timers.Min()
		if !ok {
			return 0
		}
		if it.at > now.UnixNano() {
			return it.at
		}
		b.timers.Delete(it)
		b.ready(it)
	}
}

// shift makes what waits for a retry wait no longer, after the clock was set back
// by d.
func (b *book) shift(d time.Duration) {
	var waiting []*item
	for _, it := range b.items {
		if it.until != 0 {
			waiting = append(waiting, it)
		}
	}
	for _, it := range waiting {
		b.unplace(it)
		it.until -= int64(d)
		if it.lane != nil {
			it.lane.stale = true
		}
		b.place(it)
	}
}

// place queues an item, or the one that stands for its lane, if it may run now or
// later.
func (b *book) place(it *item) {
	if l := it.lane; l != nil {
		b.dirty[l] = struct{}{}
		return
	}
	if !it.shelf.known || it.stray || it.spoilt || b.held[it.id] != nil {
		return
	}
	it.rank = it.priority
	b.queue(it, it.next())
}

// next returns when a job may run next. After its first run, only its retry counts:
// RunAt has passed, even if the clock was set back since.
func (it *item) next() int64 {
	if it.run.Serial > 0 {
		return it.until
	}
	return it.due
}

// queue has an item run from a time on. What is due already is moved by the next
// tick.
func (b *book) queue(it *item, at int64) {
	it.at, it.spot = at, inTimers
	b.timers.Set(it)
}

func (b *book) ready(it *item) {
	it.spot = inReady
	it.shelf.ready.Set(it)
}

// unplace takes an item, or the one that stands for its lane, out of the queues.
func (b *book) unplace(it *item) {
	if it.lane != nil {
		if it.lane.stands == nil {
			return
		}
		it = it.lane.stands
		it.lane.stands = nil
	}
	switch it.spot {
	case inReady:
		it.shelf.ready.Delete(it)
	case inTimers:
		b.timers.Delete(it)
	}
	it.spot = nowhere
}
