package etcd_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/crashtest"
)

// claimerEnv makes the test binary a process that claims, says so and then
// holds the claim until its input ends.
const claimerEnv = "FENCEPOST_TEST_CLAIMER"

func TestMain(m *testing.M) {
	if url := os.Getenv(claimerEnv); url != "" {
		claimForEver(url)
		return
	}
	if url := os.Getenv(stagerEnv); url != "" {
		dieStaged(url)
		os.Exit(1) // it lives
	}
	if spec := os.Getenv(writerEnv); spec != "" {
		fmt.Println(writeUntilRefused(spec))
		return
	}
	if crashtest.Child(openAt) {
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func claimForEver(url string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := etcd.Open(ctx, url, etcd.Config{})
	if err == nil {
		_, err = s.Claim(ctx)
	}
	fmt.Println("claimed", err)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// An expiring context is over when it is told to be, and then says that its time
// was: so a test waits for what must come before, however slow the machine is.
type expiring struct {
	context.Context
	over chan struct{}
}

func (e expiring) Done() <-chan struct{} { return e.over }

func (e expiring) Err() error {
	select {
	case <-e.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// expires returns a context and what ends its time, at the latest done after a minute.
func expires(t *testing.T) (context.Context, func()) {
	e := expiring{within(t, time.Minute), make(chan struct{})}
	var once sync.Once
	expire := func() { once.Do(func() { close(e.over) }) }
	context.AfterFunc(e.Context, expire)
	return e, expire
}

// longer calls fn with ever more time until its error is as wanted: a loaded
// machine may not come that far in the first.
func longer(t *testing.T, first time.Duration, fn func(context.Context) error, wanted func(error) bool) error {
	t.Helper()
	for d := first; ; d *= 4 {
		err := fn(within(t, d))
		if err == nil || wanted(err) || d > 20*time.Second {
			return err
		}
	}
}

func open(t *testing.T, url string, cfg etcd.Config) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), url, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// claimAfter is the claim of the next epoch after head, and its record.
func claimAfter(head driver.Head) (driver.Claim, driver.Record) {
	token := fence.Token{Generation: generation.Generation(7), Epoch: head.Claim.Token.Epoch + epoch.Epoch(1)}
	claim := driver.Claim{
		Token: token, ID: driver.NewID(), Revision: head.Revision + 1, DataVersion: 1, ReadableBy: 1,
		Holder: fence.Holder{Name: "holder", Since: time.Now()}, PriorClaim: head.Claim.ID, PriorCommit: head.Commit,
	}
	return claim, driver.Record{Revision: claim.Revision, ID: claim.ID, Token: token, Payload: []byte("claim")}
}

// claim installs the next token and returns the head that it makes.
func claim(t *testing.T, s *etcd.Store) driver.Head {
	t.Helper()
	ctx := within(t, time.Minute)
	c, err := s.Claim(ctx)
	require.NoError(t, err)
	next, rec := claimAfter(c.Head())
	require.NoError(t, c.Install(ctx, next, rec))
	return next.Head()
}

func record(head driver.Head, payload string) driver.Record {
	return driver.Record{Revision: head.Revision + 1, ID: driver.NewID(), Token: head.Claim.Token, Payload: []byte(payload)}
}

// commit appends n records and returns the head after them.
func commit(t *testing.T, s *etcd.Store, head driver.Head, n int, payload string) driver.Head {
	t.Helper()
	for range n {
		rec := record(head, payload)
		require.NoError(t, s.Append(within(t, time.Minute), head, rec))
		head = head.After(rec)
	}
	return head
}

func ids(t *testing.T, s *etcd.Store) []driver.ID {
	t.Helper()
	return idsAbove(t, s, 0)
}

func idsAbove(t *testing.T, s *etcd.Store, after uint64) (ids []driver.ID) {
	t.Helper()
	require.NoError(t, s.Log(within(t, time.Minute), after, func(rec driver.Record) error {
		ids = append(ids, rec.ID)
		return nil
	}))
	return ids
}

// classed returns the driver's error in err.
func classed(t *testing.T, err error) *driver.Error {
	t.Helper()
	var e *driver.Error
	require.ErrorAs(t, err, &e)
	return e
}
