package work

import (
	"cmp"
	"slices"
)

// A lane keeps the jobs of one key, of a kind with an order. One of them stands
// for it in the queues.
type lane struct {
	shelf  *shelf
	key    string
	items  []*item // by ID
	active *item   // whose run has the token
	stands *item   // in the queues; nil if none may run, now or later

	// Of Latest:
	rank  int   // highest priority that an item has had since the lane began
	first int64 // when the first of the items is due
	until int64 // when the retry of the newest failure is due; 0: none is
	stale bool  // first and until have to be found anew
}

// enterLane puts an item into the lane of its key.
func (b *book) enterLane(it *item) {
	l := it.shelf.lanes[it.key]
	if l == nil {
		l = &lane{shelf: it.shelf, key: it.key, rank: it.priority, first: it.next()}
		it.shelf.lanes[it.key] = l
	}
	it.lane = l
	b.unplace(it)
	at, _ := slices.BinarySearchFunc(l.items, it.id, byID)
	l.items = slices.Insert(l.items, at, it)
	l.rank, l.first, l.until = max(l.rank, it.priority), min(l.first, it.next()), max(l.until, it.until)
}

func byID(a *item, id ID) int { return cmp.Compare(a.id, id) }

func (l *lane) delete(it *item) {
	at, _ := slices.BinarySearchFunc(l.items, it.id, byID)
	if at == 0 {
		l.items[0] = nil
		l.items = l.items[1:]
	} else {
		l.items = slices.Delete(l.items, at, at+1)
	}
	l.stale = true
}

// due returns when a Latest lane may run, which is not before the retry of a
// failure.
func (l *lane) due() int64 {
	if l.stale {
		l.stale = false
		l.first, l.until = l.items[0].next(), 0
		for _, it := range l.items {
			l.first, l.until = min(l.first, it.next()), max(l.until, it.until)
		}
	}
	return max(l.first, l.until)
}

// head returns the item that may stand for the lane; nil if none may. An item whose run
// can't be read is passed over, but blocks the key if the order is Each.
func (l *lane) head() *item {
	for _, it := range l.items {
		if !it.spoilt {
			return it
		}
		if l.shelf.Order == Each {
			return nil
		}
	}
	return nil
}

// placeLane queues what stands for a lane, if it may run now or later and nothing
// stands for it yet.
func (b *book) placeLane(l *lane) {
	head := l.head()
	if l.stands != nil || l.active != nil || head == nil || head.stray {
		return
	}
	l.stands = head
	if l.shelf.Order == Each {
		head.rank = head.priority
		b.queue(head, head.next())
		return
	}
	head.rank = l.rank
	b.queue(head, l.due())
}

// newest returns the newest item of a Latest lane that is due, and those before it
// that are: one run does them all.
func (l *lane) newest(now int64) (newest *item, older []*item) {
	for _, it := range l.items {
		if it.later(now) || it.spoilt {
			continue
		}
		if newest != nil {
			older = append(older, newest)
		}
		newest = it
	}
	return newest, older
}

// later reports whether the job's time to run at is still to come.
func (it *item) later(now int64) bool { return it.run.Serial == 0 && it.due > now }

// covered returns the items that the run of it does too.
func (it *item) covered() []*item {
	if it.lane == nil || it.shelf.Order != Latest {
		return nil
	}
	var older []*item
	for _, other := range it.lane.items {
		if other.id >= it.id {
			break
		}
		if !other.later(it.run.At.UnixNano()) && !other.spoilt {
			older = append(older, other)
		}
	}
	return older
}
