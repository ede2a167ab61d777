// Package crashtest kills real processes between the steps of a claim and of a
// commit, and checks what the next process finds.
package crashtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/step"
)

// The variables by which a child learns its part.
const (
	whereVar = "FENCEPOST_CRASH_WHERE"
	pointVar = "FENCEPOST_CRASH_POINT"
)

// Open opens the store that where names, in whichever process.
type Open func(where string) (driver.Store, error)

// Child plays the child's part where this process is a child, and reports that
// it was one and lives, though its part was to die: it must end with a status
// other than 0. TestMain is to call it first.
func Child(open Open) bool {
	where, point := os.Getenv(whereVar), os.Getenv(pointVar)
	if point == "" {
		return false
	}
	if err := die(where, step.Point(point), open); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
	}
	return true
}

var (
	pair  = catalog.JSON[int]("pair")
	bound = time.Minute
)

// die claims and commits, and is killed at point.
func die(where string, point step.Point, open Open) error {
	store, err := open(where)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	var landed, published atomic.Bool
	ctx = step.With(ctx, func(p step.Point) {
		landed.CompareAndSwap(false, p == step.CommitLanded)
		published.CompareAndSwap(false, p == step.SnapshotPublished && landed.Load())
		switch {
		case behindCommits[p] && !landed.Load(): // the open compacts what it finds, beside the commit
		case p == step.SnapshotTrimmed && !published.Load(): // a claim trims what it finds
		case p == point:
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing returns from that
			select {}
		}
	})
	cfg := config()
	if behindCommits[point] {
		cfg.CompactAfter = 1
	}
	c, err := catalog.Open(ctx, store, cfg)
	if err != nil {
		return err
	}
	fmt.Println("claimed", c.Token())
	if err := increment(ctx, c, point == step.BatchStaged); err != nil {
		return err
	}
	fmt.Println("acknowledged")
	select {
	case <-time.After(10 * time.Second): // the commit loop comes to its last point
		return errors.New("the point was not reached")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func config() catalog.Config {
	return catalog.Config{Generation: 1, Holder: fence.Holder{Name: "crashtest"}, ClaimTimeout: bound}
}

// behindCommits are the points of a compaction, which a child asks for by its
// commit.
var behindCommits = map[step.Point]bool{step.SnapshotStaged: true, step.SnapshotPublished: true, step.SnapshotTrimmed: true}

// ballast makes a commit a large one.
const ballast = 3 << 20

// increment raises both halves of the pair in one commit, on demand a large one.
func increment(ctx context.Context, c *catalog.Catalog, large bool) error {
	return c.Update(ctx, func(tx *catalog.Tx) error {
		if large {
			if err := catalog.Bytes("ballast").Set(tx, "b", make([]byte, ballast)); err != nil {
				return err
			}
		}
		for _, key := range []string{"left", "right"} {
			n, _, err := pair.Get(tx, key)
			if err != nil {
				return err
			}
			if err := pair.Set(tx, key, n+1); err != nil {
				return err
			}
		}
		return nil
	})
}

// durable are the points behind which a process that dies leaves one more
// claim, and one more commit.
var durable = map[step.Point]struct{ claims, commits int }{
	step.ClaimCommitted:    {claims: 1},
	step.CommitBegun:       {claims: 1},
	step.CommitLanded:      {claims: 1, commits: 1},
	step.CommitAcked:       {claims: 1, commits: 1},
	step.BatchStaged:       {claims: 1},
	step.SnapshotStaged:    {claims: 1, commits: 1},
	step.SnapshotPublished: {claims: 1, commits: 1},
	step.SnapshotTrimmed:   {claims: 1, commits: 1},
}

// Run kills a child at each of points, on the catalog that where names, and
// checks that the next open sees all of a commit or nothing. Points is what the
// driver reaches; one that a child does not reach fails the test.
func Run(t *testing.T, where string, open Open, points []step.Point) {
	store, err := open(where)
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	c, err := catalog.Open(t.Context(), store, config())
	require.NoError(t, err)
	require.NoError(t, increment(t.Context(), c, false))
	require.NoError(t, c.Close())
	claims, commits := 1, 1
	for i, point := range points {
		t.Logf("step %2d of %d: %s", i+1, len(points), point)
		acked := kill(t, where, point)
		claims += durable[point].claims
		commits += durable[point].commits
		if acked {
			require.Equal(t, 1, durable[point].commits, "acknowledged before it was durable")
		}
		c, err := catalog.Open(t.Context(), store, config())
		require.NoError(t, err)
		claims++
		require.EqualValues(t, claims, c.Token().Epoch, "%s: claims so far", point)
		inspect(t, c, commits)
		require.NoError(t, increment(t.Context(), c, false), "the next holder can't write")
		commits++
		require.NoError(t, c.Close())
		chain(t, store, claims, commits)
	}
}

// kill starts a child that dies at point, and reports whether it had been told
// that its commit landed.
func kill(t *testing.T, where string, point step.Point) (acked bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), whereVar+"="+where, pointVar+"="+string(point))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		acked = acked || lines.Text() == "acknowledged"
	}
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit, "%s", stderr.String())
	status, ok := exit.Sys().(syscall.WaitStatus)
	require.True(t, ok && status.Signaled() && status.Signal() == syscall.SIGKILL,
		"%s was not reached: %v\n%s", point, exit, stderr.String())
	return acked
}

// inspect checks that both halves of the pair say want.
func inspect(t *testing.T, c *catalog.Catalog, want int) {
	t.Helper()
	require.NoError(t, c.View(func(r *catalog.Reader) error {
		for _, key := range []string{"left", "right"} {
			n, _, err := pair.Get(r, key)
			require.NoError(t, err)
			require.Equal(t, want, n, "%s half", key)
		}
		return nil
	}))
}

// chain checks that the history of claims has no gap, and the log every commit
// that was not compacted.
func chain(t *testing.T, store driver.Store, claims, commits int) {
	t.Helper()
	history, err := catalog.History(t.Context(), store)
	require.NoError(t, err)
	require.Len(t, history, claims)
	for i := 1; i < len(history); i++ {
		require.Equal(t, history[i-1].ID, history[i].PriorClaim)
		require.EqualValues(t, i+1, history[i].Token.Epoch)
	}
	snapshot, err := catalog.Compacted(t.Context(), store)
	require.NoError(t, err)
	n, last := 0, max(snapshot.Revision, 1)-1
	require.NoError(t, catalog.ReadLog(t.Context(), store, last, func(c catalog.Commit) error {
		require.Equal(t, last+1, c.Revision)
		if last++; len(c.Changes) > 0 {
			n++
		}
		return nil
	}))
	if snapshot.IsZero() {
		require.Equal(t, commits, n, "commits in the log")
	}
	require.Less(t, history[claims-1].Revision, last, "the last commit is in the log")
}
