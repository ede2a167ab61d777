package catalog

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

// ErrObserved means that somebody else reads the changes of a collection of
// this handle already.
var ErrObserved = errors.New("catalog: the changes of the collection are read already")

// Changes are what a holder's own commits do to some collections, in order, for
// an index that is kept in memory. Of a collection, a handle has one Changes at a
// time. Its methods may be called concurrently.
type Changes struct {
	c           *Catalog
	collections []string
	wake        chan struct{}

	mu      sync.Mutex
	waiting []Change
}

// Changes begins to read the changes of collections. Whatever a View that is
// begun afterwards does not show comes by [Changes.Take]; what it shows may come
// too. The caller stops it. An error that wraps [ErrObserved] means that another
// Changes of this handle reads one of the collections.
func (c *Catalog) Changes(collections ...string) (*Changes, error) {
	c.observing.mu.Lock()
	defer c.observing.mu.Unlock()
	for _, other := range c.observing.all {
		for _, name := range collections {
			if slices.Contains(other.collections, name) {
				return nil, fmt.Errorf("%w: %q", ErrObserved, name)
			}
		}
	}
	ch := &Changes{c: c, collections: slices.Clone(collections), wake: make(chan struct{}, 1)}
	c.observing.all = append(c.observing.all, ch)
	return ch, nil
}

// Wake returns a channel that receives after commits with changes. One value may
// stand for several commits.
func (ch *Changes) Wake() <-chan struct{} { return ch.wake }

// Take returns the changes since the last call, in the order of their commits.
// Their values are shared and must not be changed.
func (ch *Changes) Take() []Change {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	taken := ch.waiting
	ch.waiting = nil
	return taken
}

// View calls fn with what Take would return and with the entries after exactly these
// changes, so that an index which applies them agrees with the entries.
func (ch *Changes) View(fn func(taken []Change, r *Reader) error) error {
	ch.c.observing.mu.Lock()
	taken, now := ch.Take(), ch.c.state.Load()
	ch.c.observing.mu.Unlock()
	return now.view(func(r *Reader) error { return fn(taken, r) })
}

// Stop ends the reading.
func (ch *Changes) Stop() {
	o := &ch.c.observing
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = slices.DeleteFunc(o.all, func(other *Changes) bool { return other == ch })
}

// observing is who reads the changes of a handle's commits.
type observing struct {
	mu  sync.Mutex
	all []*Changes
}

// publish makes next the state, and hands its changes to those who read them.
// Nobody begins to read in between.
func (c *Catalog) publish(next *state, changes []Change) {
	c.observing.mu.Lock()
	defer c.observing.mu.Unlock()
	c.state.Store(next)
	for _, ch := range c.observing.all {
		ch.add(changes)
	}
}

func (ch *Changes) add(changes []Change) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	before := len(ch.waiting)
	for _, change := range changes {
		if slices.Contains(ch.collections, change.Collection) {
			ch.waiting = append(ch.waiting, change)
		}
	}
	if len(ch.waiting) > before {
		nudge(ch.wake)
	}
}
