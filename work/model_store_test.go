package work_test

import (
	"context"
	"errors"
	"sync"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// A lossyStore is one process's way to a store of any kind. It loses requests and
// answers, delays commits until behind those of others, and fails, as it is told.
type lossyStore struct {
	driver.Store
	mu      sync.Mutex
	next    []loss // of the next commits
	cut     bool   // nothing is read or written
	delayed []func()
}

// A loss is what happens to a commit.
type loss int

const (
	refuses      loss = iota // it fails, and never lands
	losesRequest             // it never lands, and its outcome is unknown
	losesAnswer              // it lands, and its outcome is unknown
	delays                   // its outcome is unknown, and it comes to the store at release
)

var errLost = errors.New("the network is lossy")

// lose has losses happen to the next commits.
func (s *lossyStore) lose(next ...loss) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = next
}

// disconnect has every commit and every look at the head fail.
func (s *lossyStore) disconnect(cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = cut
}

// release lets the delayed commits come to the store.
func (s *lossyStore) release() {
	s.mu.Lock()
	delayed := s.delayed
	s.delayed = nil
	s.mu.Unlock()
	for _, send := range delayed {
		send()
	}
}

func (s *lossyStore) fail(outcome driver.Outcome) error {
	return &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry, Outcome: outcome}, Store: s.String(), Op: "call", Err: errLost}
}

func (s *lossyStore) isCut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cut
}

// Head implements [driver.Store].
func (s *lossyStore) Head(ctx context.Context) (driver.Head, error) {
	if s.isCut() {
		return driver.Head{}, s.fail(driver.NotApplied)
	}
	return s.Store.Head(ctx)
}

// Append implements [driver.Store].
func (s *lossyStore) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	s.mu.Lock()
	what := loss(-1)
	if len(s.next) > 0 {
		what, s.next = s.next[0], s.next[1:]
	}
	if s.cut {
		what = refuses
	}
	if what == delays {
		late := context.WithoutCancel(ctx)
		s.delayed = append(s.delayed, func() { _ = s.Store.Append(late, prior, rec) })
	}
	s.mu.Unlock()
	switch what {
	case refuses:
		return s.fail(driver.NotApplied)
	case losesRequest, delays:
		return s.fail(driver.Unknown)
	case losesAnswer:
		_ = s.Store.Append(ctx, prior, rec) // whatever came of it, nobody hears
		return s.fail(driver.Unknown)
	default:
		return s.Store.Append(ctx, prior, rec)
	}
}

// Watch implements [driver.Watcher], if the store is one.
func (s *lossyStore) Watch(ctx context.Context, wake func()) error {
	if w, ok := s.Store.(driver.Watcher); ok && !s.isCut() {
		return w.Watch(ctx, wake)
	}
	return s.fail(driver.NotApplied)
}
