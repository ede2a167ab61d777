// Package worktest runs jobs in an application's tests, so that these need not care
// whether work runs at once or later.
package worktest

import (
	"context"
	"errors"
	"testing"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/work"
)

// RunAll runs every job of c that may run now, and those that they enqueue, until
// none is left, and returns the status behind that. It reports each run that failed
// as an error of the test: see [Failing] for jobs that are to fail. Jobs for a later
// time, and those that wait for a retry, stay. No other Queue may run on c.
func RunAll(t testing.TB, c *catalog.Catalog, cfg work.Config) work.Status {
	t.Helper()
	st := Failing(t, c, cfg)
	for _, f := range st.Failures {
		t.Errorf("worktest: attempt %d of job %d, %s %q, failed: %s", f.Attempt, f.ID, f.Kind, f.Key, f.Error)
	}
	return st
}

// Failing does the same, but for that a run may fail. Status.Failures has those that
// did during the call.
func Failing(t testing.TB, c *catalog.Catalog, cfg work.Config) work.Status {
	t.Helper()
	var before []work.Failure
	err := c.View(func(r *catalog.Reader) (err error) { before, err = work.Failures(r); return err })
	if err != nil {
		t.Fatal("worktest:", err)
	}
	q, err := work.New(c, cfg)
	if err != nil {
		t.Fatal("worktest:", err)
	}
	stopped := errors.New("worktest: nothing is left to run")
	ctx, stop := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	err = q.Idle(ctx)
	var st work.Status
	if err == nil {
		st, err = q.Status(ctx)
	}
	stop(stopped)
	if ended := <-done; !errors.Is(ended, stopped) {
		err = ended
	}
	if err != nil {
		t.Fatal("worktest:", err)
	}
	st.Failures = since(st.Failures, before)
	return st
}

// since returns the failures that are newer than those before, both newest first.
func since(all, before []work.Failure) []work.Failure {
	for i, f := range all {
		if len(before) > 0 && f.Number <= before[0].Number {
			return all[:i]
		}
	}
	return all
}

// Twice returns kinds whose runs do everything twice, one run behind the other, with
// the same job. A handler that is not idempotent shows it: its second run fails, or
// what it has made is there twice. A run that completes its job itself runs once.
func Twice(kinds ...work.Kind) []work.Kind {
	twice := make([]work.Kind, len(kinds))
	for i, k := range kinds {
		run := k.Run
		k.Run = func(ctx context.Context, j *work.Job) error {
			if err := run(ctx, j); err != nil || j.Completed() {
				return err
			}
			return run(ctx, j)
		}
		twice[i] = k
	}
	return twice
}
