package etcd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func TestACommitWaitsWhileAClaimIsUnderWayAndGoesOnAfterAbandon(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	holder, rival := open(t, url, etcd.Config{}), open(t, url, etcd.Config{})
	head := claim(t, holder)
	c, err := rival.Claim(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, head.Commit, c.Head().Commit)

	rec := record(head, "waits")
	err = longer(t, 300*time.Millisecond, func(ctx context.Context) error { return holder.Append(ctx, head, rec) }, underWay)
	require.ErrorContains(t, err, "pid "+strconv.Itoa(os.Getpid()))
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	require.Equal(t, exitcodes.Retry, classed(t, err).Disposition())

	done := make(chan error, 1)
	ctx := within(t, time.Minute)
	go func() { done <- holder.Append(ctx, head, rec) }()
	require.Never(t, func() bool { return len(done) > 0 }, 500*time.Millisecond, 20*time.Millisecond)
	c.Abandon()
	require.NoError(t, <-done)
	require.Len(t, ids(t, holder), 2)
}

func TestADeadClaimerReleasesCommitsWhenItsLeaseEnds(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s := open(t, url, etcd.Config{})
	head := claim(t, s)
	dead := startClaimer(t, url)
	require.NoError(t, dead.Process.Kill())
	_ = dead.Wait() // it was killed, and says so

	err := s.Append(within(t, time.Second), head, record(head, "too early")) // its lease is longer
	require.ErrorContains(t, err, "a claim is under way")
	commit(t, s, head, 1, "after the lease")
}

func TestAClaimThatAnotherBlocksSaysWhoDoes(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s := open(t, url, etcd.Config{})
	other := startClaimer(t, url)

	// Longer than the lease: a claim under way is kept alive.
	err := longer(t, 4500*time.Millisecond, func(ctx context.Context) error { _, err := s.Claim(ctx); return err },
		func(err error) bool { return errors.Is(err, driver.ErrBlocked) })
	require.ErrorIs(t, err, driver.ErrBlocked)
	require.ErrorContains(t, err, "pid "+strconv.Itoa(other.Process.Pid)+" on ")
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	require.Equal(t, exitcodes.Retry, classed(t, err).Disposition())
}

func TestAClaimIsKeptAliveNoLongerThanItsContextLasts(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	slow, next := open(t, url, etcd.Config{ClaimTTL: 2 * time.Second}), open(t, url, etcd.Config{})
	_, err := slow.Head(within(t, time.Minute)) // so that it need not connect
	require.NoError(t, err)
	c, err := slow.Claim(within(t, 3*time.Second))
	require.NoError(t, err)
	other, err := next.Claim(within(t, time.Minute))
	require.NoError(t, err)

	late, rec := claimAfter(c.Head())
	err = c.Install(within(t, time.Minute), late, rec)
	require.ErrorIs(t, err, driver.ErrConflict, "the head is the same, but the claim under way is another's")
	require.ErrorContains(t, err, "lease ended")
	mine, rec := claimAfter(other.Head())
	require.NoError(t, other.Install(within(t, time.Minute), mine, rec))
	now, err := next.Head(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, mine.ID, now.Commit)
}

func TestAClaimThatIsRenewedOutlivesItsContext(t *testing.T) {
	t.Parallel()
	s := open(t, testetcd.URL(t), etcd.Config{ClaimTTL: 2 * time.Second})
	c, err := s.Claim(within(t, 3*time.Second))
	require.NoError(t, err)
	for begun := time.Now(); time.Since(begun) < 5*time.Second; <-time.After(200 * time.Millisecond) {
		require.NoError(t, c.Renew(within(t, time.Minute)))
	}
	next, rec := claimAfter(c.Head())
	require.NoError(t, c.Install(within(t, time.Minute), next, rec))
	require.Error(t, c.Renew(within(t, time.Minute)))
}

func TestAClaimIsRefusedWhereANoteItRestsOnHasChanged(t *testing.T) {
	t.Parallel()
	s := open(t, testetcd.URL(t), etcd.Config{})
	ctx := within(t, time.Minute)
	version, err := s.Post(ctx, driver.Note{Key: "promote", Value: []byte("7")})
	require.NoError(t, err)
	c, err := s.Claim(ctx)
	require.NoError(t, err)
	note := driver.Note{Key: "promote", Version: version}
	_, err = s.Post(ctx, note)
	require.NoError(t, err)

	next, rec := claimAfter(c.Head())
	err = c.Install(ctx, next, rec, note)
	require.ErrorIs(t, err, driver.ErrConflict)
	require.ErrorContains(t, err, "note")
	head, err := s.Head(ctx)
	require.NoError(t, err)
	require.True(t, head.IsZero())

	// That there is no note is a condition too.
	c, err = s.Claim(ctx)
	require.NoError(t, err)
	require.NoError(t, c.Install(ctx, next, rec, driver.Note{Key: "promote"}))
}

func TestAClaimThatFailsAtTheHeadKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, client, key := open(t, url, etcd.Config{}), testetcd.Client(t, url), testetcd.Prefix(t, url)+"/head"
	claim(t, s)
	head, err := client.Get(within(t, time.Minute), key)
	require.NoError(t, err)
	_, err = client.Put(within(t, time.Minute), key, "foreign")
	require.NoError(t, err)
	_, err = s.Claim(within(t, time.Minute)) // for so long it would be kept alive
	require.ErrorIs(t, err, driver.ErrCorrupt)
	require.Empty(t, keysBeneath(t, url, "wanted"))
	_, err = client.Put(within(t, time.Minute), key, string(head.Kvs[0].Value))
	require.NoError(t, err)
	claim(t, s)
}

// The lease of a claim is a courtesy: whatever else has come between, the claim's own
// Txn finds out.
func TestAClaimIsRefusedWhereAnythingThatItRestsOnHasMovedThoughItsLeaseLives(t *testing.T) {
	t.Parallel()
	end := fmt.Sprintf("%016x-%s", 1, driver.NewID())
	for name, test := range map[string]struct {
		first      bool // nobody has claimed before
		key, value string
	}{
		"the head of the claim before":            {key: "head", value: "another"},
		"the head where there was none":           {key: "head", value: "another", first: true},
		"the end of the log":                      {key: "head\x00end", value: end},
		"the end of the log where there was none": {key: "head\x00end", value: end, first: true},
		"the record that it adds":                 {key: "log/0000000000000002", value: "another"},
		"the claim-wanted key":                    {key: "wanted", value: "another"},
		"the record of losses":                    {key: "token\x00losses", value: "another"},
	} {
		t.Run(name, func(t *testing.T) {
			url := testetcd.URL(t)
			s, client := open(t, url, etcd.Config{}), testetcd.Client(t, url)
			if !test.first {
				claim(t, s)
			}
			c, err := s.Claim(within(t, time.Minute))
			require.NoError(t, err)
			_, err = client.Put(within(t, time.Minute), testetcd.Prefix(t, url)+"/"+test.key, test.value)
			require.NoError(t, err)
			before := keysBeneath(t, url, "claim/")
			next, rec := claimAfter(c.Head())
			err = c.Install(within(t, time.Minute), next, rec)
			require.ErrorIs(t, err, driver.ErrConflict)
			require.Equal(t, driver.NotApplied, driver.OutcomeOf(err), "%v", err)
			require.Equal(t, before, keysBeneath(t, url, "claim/"))
		})
	}
}

func TestACommitOrAClaimThatIsNotTheNextIsADefectAndWritesNothing(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s := open(t, url, etcd.Config{})
	head := commit(t, s, claim(t, s), 1, "x")
	before := keysBeneath(t, url, "")
	defect := func(err error) {
		t.Helper()
		require.Equal(t, exitcodes.Panic, exitcodes.Of(err), "%v", err)
		require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
		require.Equal(t, before, keysBeneath(t, url, ""))
	}
	for _, revision := range []uint64{head.Revision, head.Revision + 2} {
		rec := record(head, "another revision")
		rec.Revision = revision
		defect(s.Append(within(t, time.Minute), head, rec))
	}
	nameless := record(head, "no id")
	nameless.ID = driver.ID{}
	defect(s.Append(within(t, time.Minute), head, nameless))
	for _, change := range []func(*driver.Claim, *driver.Record){
		func(c *driver.Claim, _ *driver.Record) { c.Revision++ },
		func(_ *driver.Claim, rec *driver.Record) { rec.Revision++ },
		func(c *driver.Claim, rec *driver.Record) { c.Revision++; rec.Revision++ },
		func(_ *driver.Claim, rec *driver.Record) { rec.ID = driver.NewID() },
	} {
		c, err := s.Claim(within(t, time.Minute))
		require.NoError(t, err)
		next, rec := claimAfter(c.Head())
		change(&next, &rec)
		err = c.Install(within(t, time.Minute), next, rec)
		require.Eventually(t, func() bool { return len(keysBeneath(t, url, "wanted")) == 0 }, time.Minute, time.Millisecond)
		defect(err)
	}
}

func TestTheTokenKeyIsWrittenByClaimsAlone(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, client := open(t, url, etcd.Config{}), testetcd.Client(t, url)
	token := func() (int64, driver.Claim) {
		resp, err := client.Get(within(t, time.Minute), testetcd.Prefix(t, url)+"/token")
		require.NoError(t, err)
		require.Len(t, resp.Kvs, 1)
		c, err := driver.UnmarshalClaim(resp.Kvs[0].Value)
		require.NoError(t, err)
		return resp.Kvs[0].ModRevision, c
	}
	head := claim(t, s)
	first, c := token()
	require.Equal(t, head.Claim.Token, c.Token)
	head = commit(t, s, head, 3, "x")
	_, err := s.Post(within(t, time.Minute), driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)
	again, _ := token()
	require.Equal(t, first, again)

	next := claim(t, s)
	moved, c := token()
	require.Greater(t, moved, first)
	require.Equal(t, next.Claim.Token, c.Token)
	require.Equal(t, head.Commit, c.PriorCommit)
}

func TestCloseEndsTheClaimsUnderWay(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, err := etcd.Open(t.Context(), url, etcd.Config{ClaimTTL: time.Hour})
	require.NoError(t, err)
	_, err = s.Claim(within(t, time.Minute))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "a second Close does nothing")
	_, err = s.Head(within(t, time.Minute))
	require.ErrorContains(t, err, "closed")
	_, err = open(t, url, etcd.Config{}).Claim(within(t, time.Minute)) // sooner than the lease ends
	require.NoError(t, err)
}

// underWay reports whether an error names a claim that is in the way.
func underWay(err error) bool { return strings.Contains(err.Error(), "a claim is under way") }

// startClaimer starts a process of its own that has claimed when it returns.
func startClaimer(t *testing.T, url string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), claimerEnv+"="+url)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _, _ = in.Close(), cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "claimed <nil>\n", line)
	return cmd
}
