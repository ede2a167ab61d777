package worktest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/work"
	"github.com/fencepost/fencepost/work/worktest"
)

func open(t *testing.T) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), memory.New(), catalog.Config{Generation: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func enqueue(t *testing.T, c *catalog.Catalog, kind string) {
	t.Helper()
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error { _, err := work.Enqueue(tx, kind, "", nil); return err }))
}

func TestRunAllRunsJobsAndThoseThatTheyEnqueueUntilNoneIsLeft(t *testing.T) {
	t.Parallel()
	c := open(t)
	var ran []string
	cfg := work.Config{Concurrency: 1, Kinds: []work.Kind{
		{Name: "first", Run: func(ctx context.Context, j *work.Job) error {
			ran = append(ran, j.Kind)
			return c.Update(ctx, func(tx *catalog.Tx) error { _, err := work.Enqueue(tx, "second", "", nil); return err })
		}},
		{Name: "second", Run: func(_ context.Context, j *work.Job) error { ran = append(ran, j.Kind); return nil }},
	}}
	for range 2 { // one after the other on a handle
		enqueue(t, c, "first")
		st := worktest.RunAll(t, c, cfg)
		require.Zero(t, st.Live)
	}
	require.Equal(t, []string{"first", "second", "first", "second"}, ran)
}

// A recorder is a test that notes its errors.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestARunThatFailsFailsTheTestUnlessItMay(t *testing.T) {
	t.Parallel()
	c := open(t)
	cfg := work.Config{Kinds: []work.Kind{{Name: "sync", Run: func(context.Context, *work.Job) error { return errors.New("the index is away") }}}}
	enqueue(t, c, "sync")
	r := &recorder{TB: t}
	st := worktest.RunAll(r, c, cfg)
	require.Equal(t, []string{`worktest: attempt 1 of job 1, sync "", failed: the index is away`}, r.errors)
	require.Equal(t, 1, st.States[work.Backoff])
	enqueue(t, c, "sync")
	st = worktest.Failing(t, c, cfg)
	require.Len(t, st.Failures, 1, "those of before are not of this call")
	require.Equal(t, work.ID(2), st.Failures[0].ID)
}

func TestTwiceShowsAHandlerThatIsNotIdempotent(t *testing.T) {
	t.Parallel()
	c := open(t)
	made, completed := map[string]bool{}, 0
	kinds := worktest.Twice(work.Kind{Name: "create", Run: func(_ context.Context, j *work.Job) error {
		if made[j.Key] {
			return errors.New("it is there already")
		}
		made[j.Key] = true
		return nil
	}}, work.Kind{Name: "complete", Run: func(ctx context.Context, j *work.Job) error {
		completed++
		return c.Update(ctx, j.Complete)
	}})
	enqueue(t, c, "create")
	st := worktest.Failing(t, c, work.Config{Kinds: kinds})
	require.Equal(t, "it is there already", st.Failures[0].Error)
	enqueue(t, c, "complete")
	worktest.RunAll(t, c, work.Config{Kinds: kinds})
	require.Equal(t, 1, completed)
}
