package reapsim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/reap"
)

// A Fleet is some machines that find the same superseded items at the same time.
type Fleet struct {
	Machines int
	Items    int
	List     time.Duration // that a listing takes
	Delete   time.Duration // that a deletion takes
	Policy   reap.Policy
	Ignore   bool // machines list once and delete all, whatever others have deleted: a clean-up without rules
}

// A Cost is what the machines have asked of the server together.
type Cost struct {
	Lists   int
	Deletes int // those that deleted something
	Wasted  int // those of items that were gone
	Left    int // items at the end
	Reports []reap.Report
}

// Play runs a pass on each machine.
func (f Fleet) Play(ctx context.Context) (Cost, error) {
	s := &server{fleet: f}
	for n := range f.Items {
		s.items = append(s.items, reap.Item{
			ID: fmt.Sprintf("item-%03d", n), Made: fence.Token{Generation: 1, Epoch: 1}, At: time.Unix(int64(n), 0),
		})
	}
	var wg sync.WaitGroup
	errs := make([]error, f.Machines)
	s.cost.Reports = make([]reap.Report, f.Machines)
	for n := range f.Machines {
		wg.Go(func() {
			if f.Ignore {
				errs[n] = s.ignore(ctx)
				return
			}
			s.cost.Reports[n], errs[n] = reap.Pass(ctx, reap.Source{List: s.list, Delete: s.delete}, fence.Token{Generation: 9, Epoch: 9}, f.Policy)
		})
	}
	wg.Wait()
	s.cost.Left = len(s.items)
	return s.cost, errors.Join(errs...)
}

// server has the items.
type server struct {
	fleet Fleet
	mu    sync.Mutex
	items []reap.Item
	cost  Cost
}

// ignore cleans up without rules.
func (s *server) ignore(ctx context.Context) error {
	items, err := s.list(ctx)
	for _, item := range items {
		if derr := s.delete(ctx, item); !errors.Is(derr, reap.ErrGone) {
			err = errors.Join(err, derr)
		}
	}
	return err
}

func (s *server) list(context.Context) ([]reap.Item, error) {
	<-time.After(s.fleet.List)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cost.Lists++
	return slices.Clone(s.items), nil
}

func (s *server) delete(_ context.Context, item reap.Item) error {
	<-time.After(s.fleet.Delete)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.items, func(other reap.Item) bool { return other.ID == item.ID })
	if at < 0 {
		s.cost.Wasted++
		return fmt.Errorf("no such item: %q: %w", item.ID, reap.ErrGone)
	}
	s.cost.Deletes++
	s.items = slices.Delete(s.items, at, at+1)
	return nil
}
