package reap_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/reap"
)

// token is that of a generation.
func token(g generation.Generation) fence.Token {
	return fence.Token{Generation: g, Epoch: epoch.Epoch(40 + g)}
}

// old is long before every MinAge, by the clock of a bubble too.
var old = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)

// A shelf is a source in memory.
type shelf struct {
	mu      sync.Mutex // passes of other goroutines are kept apart by a lock on a file, of which the race detector knows nothing
	items   []reap.Item
	lists   int
	deletes []string
	fail    map[string]error // what Delete returns for an ID
}

func (s *shelf) source() reap.Source {
	return reap.Source{
		List: func(context.Context) ([]reap.Item, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lists++
			return append([]reap.Item(nil), s.items...), nil
		},
		Delete: func(_ context.Context, item reap.Item) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.deletes = append(s.deletes, item.ID)
			if err := s.fail[item.ID]; err != nil {
				return err
			}
			for i, other := range s.items {
				if other.ID == item.ID {
					s.items = append(s.items[:i:i], s.items[i+1:]...)
					return nil
				}
			}
			return fmt.Errorf("%s: %w", item.ID, reap.ErrGone)
		},
	}
}

// put adds an item of a generation; those that are put later are younger.
func (s *shelf) put(id string, g generation.Generation) {
	s.items = append(s.items, reap.Item{ID: id, Made: token(g), At: old.Add(time.Duration(len(s.items)) * time.Hour)})
}

func TestAPassDeletesWhatSupersededGenerationsLeftOldestFirst(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	s.put("b", 2)
	s.put("a", 1)
	s.put("kept", 7)
	s.put("mine", 8)
	s.put("newer", 9)
	r, err := reap.Pass(t.Context(), s.source(), token(8), reap.Policy{})
	require.NoError(t, err)
	require.NoError(t, r.Check())
	require.Equal(t, []string{"b", "a"}, s.deletes)
	require.Equal(t, reap.Kept{Current: 2, Generation: 1}, r.Kept)
	require.Equal(t, reap.StoppedDone, r.Stopped)
	require.Equal(t, []int{1, 5, 2}, []int{r.Lists, r.Listed, r.Deleted})
}

func TestOnlyAnExplicitGoneCountsAsGone(t *testing.T) {
	t.Parallel()
	s := &shelf{fail: map[string]error{"a": errors.New("403"), "b": errors.New("404 page not found"), "c": context.DeadlineExceeded}}
	for _, id := range []string{"a", "b", "c", "d"} {
		s.put(id, 1)
	}
	r, err := reap.Pass(t.Context(), s.source(), token(8), reap.Policy{OnConflict: reap.Refresh})
	require.NoError(t, err)
	require.NoError(t, r.Check())
	require.Equal(t, []int{0, 3, 1}, []int{r.Gone, r.Failed, r.Deleted})
}
