package etcd_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/internal/crashtest"
	"github.com/fencepost/fencepost/internal/step"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func openAt(where string) (driver.Store, error) {
	return etcd.Open(context.Background(), where, etcd.Config{})
}

func TestTheProcessDiesBetweenAnyTwoStepsAndTheNextOpenSeesAllOfACommitOrNothing(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	crashtest.Run(t, url, openAt, points())
	nothingIsLeft(t, url)
}

// nothingIsLeft fails if a key is there that neither belongs to the catalog nor was
// removed by a holder, nor ends with a lease, nor is one of Left's.
func nothingIsLeft(t *testing.T, url string) {
	t.Helper()
	s := open(t, url, etcd.Config{})
	trim(t, s, drivertest.ReadHead(t, s).Claim)
	snapshot, err := catalog.Compacted(t.Context(), s)
	require.NoError(t, err)
	left, err := s.Left(t.Context())
	require.NoError(t, err)
	resp, err := testetcd.Client(t, url).Get(t.Context(), testetcd.Prefix(t, url)+"/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.NotEmpty(t, resp.Kvs)
	for _, kv := range resp.Kvs {
		key := strings.TrimPrefix(string(kv.Key), testetcd.Prefix(t, url)+"/")
		dir, rest, deeper := strings.Cut(key, "/")
		revision, _ := strconv.ParseUint(rest[:min(len(rest), 16)], 16, 64)
		ok := kv.Lease != 0
		switch dir {
		case "head", "head\x00end", "token", "token\x00losses", "snapshot":
			ok = !deeper
		case "claim":
			ok = true
		case "board":
			ok = slices.Contains([]string{"generations", "store check", "refusals", "promote", "holder", "preempt"}, rest)
		case "log", "payload":
			ok = revision >= snapshot.Revision
		case "part":
			ok = strings.HasPrefix(rest, snapshot.ID.String()+"/")
		case "scratch":
			ok = slices.ContainsFunc(left, func(l driver.Leftover) bool { return strings.HasPrefix(rest, l.Name+"/") })
		}
		require.True(t, ok, "%q is left, and nobody removes it", key)
	}
}

// points are the steps of this driver: a claim and a commit are one Txn each,
// which has no inside.
func points() []step.Point {
	return slices.DeleteFunc(step.All(), func(p step.Point) bool {
		return p == step.ClaimHeadWritten || p == step.ClaimLogWritten
	})
}

// stagerEnv makes the test binary a process that is killed when it has staged a
// large batch: of a claim where whatEnv says so, of a commit otherwise.
const (
	stagerEnv = "FENCEPOST_TEST_STAGER"
	whatEnv   = "FENCEPOST_TEST_STAGES"
)

// dieStaged returns where the process was not killed.
func dieStaged(url string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ctx = step.With(ctx, func(p step.Point) {
		if p == step.BatchStaged {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing returns from that
			select {}
		}
	})
	store, err := openAt(url)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	cfg := stages()
	if os.Getenv(whatEnv) == "claim" {
		cfg.Migrations = []catalog.Migration{{Version: 1, Name: "large", Up: fill}}
	}
	c, err := catalog.Open(ctx, store, cfg)
	if err == nil {
		err = c.Update(ctx, fill)
	}
	fmt.Fprintln(os.Stderr, "was not killed:", err)
}

func stages() catalog.Config { return catalog.Config{Generation: 1, ClaimTimeout: time.Minute} }

// fill sets more than one request takes.
func fill(tx *catalog.Tx) error {
	for n := range 5 {
		if err := catalog.Bytes("large").Set(tx, fmt.Sprint(n), []byte(payloadOf(mib))); err != nil {
			return err
		}
	}
	return nil
}

func TestOfALargeBatchWhoseProcessDiesBeforeItIsPublishedNobodySeesAnything(t *testing.T) {
	t.Parallel()
	for what, claims := range map[string]int{"commit": 1, "claim": 0} {
		t.Run(what, func(t *testing.T) {
			url := testetcd.URL(t)
			cmd := exec.CommandContext(within(t, time.Minute), os.Args[0])
			cmd.Env = append(os.Environ(), stagerEnv+"="+url, whatEnv+"="+what)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			var exit *exec.ExitError
			require.ErrorAs(t, cmd.Run(), &exit)
			status, ok := exit.Sys().(syscall.WaitStatus)
			require.True(t, ok && status.Signaled() && status.Signal() == syscall.SIGKILL, "%v\n%s", exit, stderr.String())
			require.Len(t, keysBeneath(t, url, "payload/"), 6, "what it staged")
			require.Len(t, keysBeneath(t, url, "staged/"), 1)

			s := open(t, url, etcd.Config{})
			require.Len(t, keysBeneath(t, url, "claim/"), claims)
			c, err := catalog.Open(within(t, time.Minute), s, stages())
			require.NoError(t, err)
			defer func() { require.NoError(t, c.Close()) }()
			require.EqualValues(t, claims+1, c.Token().Epoch)
			read := func() (n int) {
				require.NoError(t, c.View(func(r *catalog.Reader) error {
					return catalog.Bytes("large").Scan(r, "", func(string, []byte) bool { n++; return true })
				}))
				return n
			}
			require.Zero(t, read())
			trim(t, s, c.Claim())
			nothingStaged(t, url, 0)
			require.NoError(t, c.Update(within(t, time.Minute), fill))
			require.Equal(t, 5, read())
			nothingStaged(t, url, 6)
		})
	}
}
