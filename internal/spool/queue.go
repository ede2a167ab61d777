package spool

import (
	"slices"
	"sync"
	"time"
)

// A Queue delivers items in order, beside the goroutines that put them in. Its
// methods may be called concurrently.
type Queue[T any] struct {
	limit   int
	deliver func(item T, dropped int)

	mu      sync.Mutex
	items   []T
	dropped int           // since the last delivery
	idle    chan struct{} // closed once everything is delivered; nil: nothing is under way
}

// New returns a Queue that holds up to limit items besides the one that is being
// delivered. Deliver is called for one item at a time, with the number of items
// that were dropped just before it; it may block.
func New[T any](limit int, deliver func(item T, dropped int)) *Queue[T] {
	return &Queue[T]{limit: limit, deliver: deliver}
}

// Put appends an item. It never blocks; a full queue drops its oldest item.
func (q *Queue[T]) Put(item T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append(q.items, item)
	if len(q.items) > q.limit {
		q.items = slices.Delete(q.items, 0, 1)
		q.dropped++
	}
	if q.idle == nil {
		q.idle = make(chan struct{})
		go q.run(q.idle)
	}
}

func (q *Queue[T]) run(idle chan struct{}) {
	defer close(idle)
	for {
		item, dropped, ok := q.next()
		if !ok {
			return
		}
		q.deliver(item, dropped)
	}
}

// next takes the oldest item out; false if there is none.
func (q *Queue[T]) next() (item T, dropped int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		q.idle = nil
		return item, 0, false
	}
	item, dropped = q.items[0], q.dropped
	q.items, q.dropped = slices.Delete(q.items, 0, 1), 0
	return item, dropped, true
}

// Flush waits until the queue is empty and the last delivery has returned, at most
// for that long. It reports whether that is so.
func (q *Queue[T]) Flush(within time.Duration) bool {
	q.mu.Lock()
	idle := q.idle
	q.mu.Unlock()
	if idle == nil {
		return true
	}
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-idle:
		return true
	case <-late.C:
		return false
	}
}
