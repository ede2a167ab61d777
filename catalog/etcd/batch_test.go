package etcd_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/step"
	"github.com/fencepost/fencepost/internal/testetcd"
)

const (
	retry = exitcodes.Retry
	mib   = 1 << 20
)

// atStaged returns a context under which fn runs once a batch is staged.
func atStaged(t *testing.T, fn func()) context.Context {
	return step.With(within(t, time.Minute), func(p step.Point) {
		if p == step.BatchStaged {
			fn()
		}
	})
}

// trim calls Trim until there is no more to delete.
func trim(t *testing.T, s *etcd.Store, by driver.Claim) {
	t.Helper()
	for more := true; more; {
		var err error
		more, err = s.Trim(within(t, time.Minute), by)
		require.NoError(t, err)
	}
}

// nothingStaged fails where a batch has left anything but the chunks of
// records.
func nothingStaged(t *testing.T, url string, chunks int) {
	t.Helper()
	require.Empty(t, keysBeneath(t, url, "staged/"))
	require.Len(t, keysBeneath(t, url, "payload/"), chunks)
}

func TestAPayloadOfAnySizeIsReadAsItWasSent(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s := open(t, url, etcd.Config{})
	head := claim(t, s)
	var want []driver.Record
	chunks := 0
	for size, n := range map[int]int{0: 0, mib: 0, mib + 1: 2, 2 * mib: 2, 9*mib + 3: 10} {
		rec := record(head, payloadOf(size))
		require.NoError(t, s.Append(within(t, time.Minute), head, rec))
		head = head.After(rec)
		want, chunks = append(want, rec), chunks+n
	}
	reads(t, open(t, url, etcd.Config{}), 1, want...)
	nothingStaged(t, url, chunks)

	c, err := s.Claim(within(t, time.Minute))
	require.NoError(t, err)
	next, rec := claimAfter(c.Head())
	rec.Payload = []byte(payloadOf(5 * mib))
	require.NoError(t, c.Install(within(t, time.Minute), next, rec))
	reads(t, s, head.Revision, rec)
	nothingStaged(t, url, chunks+5)
}

func TestALargeCommitWhoseAnswerIsLostLandsOnceAndKeepsItsChunks(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	p, s := tapped(t, url)
	head := claim(t, s)
	rec := record(head, payloadOf(3*mib))
	p.on(unanswered, "/head\x00end")
	err := s.Append(within(t, time.Minute), head, rec)
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	p.set(nil)
	reads(t, s, 1, rec)
	// Sent again, it is refused, and clears away what it staged.
	err = s.Append(within(t, time.Minute), head, rec)
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	reads(t, s, 1, rec)
	nothingStaged(t, url, 3)
	trim(t, s, head.Claim)
	reads(t, s, 1, rec)
}

func TestALargeCommitThatComesLateLandsOnceThoughItWasSentAgain(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	p, s := tapped(t, url)
	head := claim(t, s)
	rec := record(head, payloadOf(3*mib))
	p.on(delayed, "/head\x00end")
	err := s.Append(within(t, time.Minute), head, rec)
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	p.set(nil)
	require.NoError(t, s.Append(within(t, time.Minute), head, rec))
	require.Equal(t, []bool{false}, p.arrive(t))
	reads(t, s, 1, rec)
	nothingStaged(t, url, 3)
}

// Where a request or its answer is lost while chunks are put, the commit was
// never sent, and the next try has less to do.
func TestALargeCommitThatWasCutShortGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	for _, lost := range []fate{unanswered, delayed} {
		url := testetcd.URL(t)
		p, s := tapped(t, url)
		head := claim(t, s)
		rec := record(head, payloadOf(6*mib))
		p.on(lost, "staged/")
		notApplied(t, s.Append(within(t, time.Minute), head, rec))
		p.on(lost, "/00000002")
		notApplied(t, s.Append(within(t, time.Minute), head, rec))
		p.on(lost, "/00000004")
		notApplied(t, s.Append(within(t, time.Minute), head, rec))
		sent := 0
		p.set(func(txn *pb.TxnRequest) fate {
			if writes(txn, "payload/") {
				sent++
			}
			return sound
		})
		require.NoError(t, s.Append(within(t, time.Minute), head, rec))
		if lost == unanswered {
			require.Equal(t, 1, sent, "chunks of the last try")
		} else {
			require.Equal(t, 2, sent, "chunks of the last try")
			require.Equal(t, []bool{false, false, false}, p.arrive(t), "what arrives behind the commit")
		}
		reads(t, s, 1, rec)
		nothingStaged(t, url, 6)
	}
}

func TestALargeUpdateComesToItsEndThoughEachTryIsCutShort(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	p, s := tapped(t, url)
	c, err := catalog.Open(within(t, time.Minute), s, catalog.Config{Generation: 1})
	require.NoError(t, err)
	sent := 0
	p.set(func(txn *pb.TxnRequest) fate {
		if writes(txn, "payload/") && !writes(txn, "log/") { // and no Trim
			if sent++; sent%3 == 0 {
				return unanswered
			}
		}
		return sound
	})
	require.NoError(t, c.Update(within(t, time.Minute), func(tx *catalog.Tx) error {
		for n := range 11 {
			if err := catalog.Bytes("large").Set(tx, fmt.Sprint(n), []byte(payloadOf(mib))); err != nil {
				return err
			}
		}
		return nil
	}))
	require.Equal(t, 12, sent, "each chunk once")
	require.EqualValues(t, 2, c.Head().Revision)
	p.set(nil)
	require.NoError(t, c.Close())
	nothingStaged(t, url, 12)
}

func TestWhatArrivesWhileTheSameCommitIsSentAgainDoesNoHarm(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	p, s := tapped(t, url)
	head := claim(t, s)
	rec := record(head, payloadOf(4*mib))
	p.on(delayed, "staged/")
	notApplied(t, s.Append(within(t, time.Minute), head, rec))
	p.on(delayed, "/00000001")
	notApplied(t, s.Append(within(t, time.Minute), head, rec))
	p.set(nil)
	ctx := atStaged(t, func() { require.Equal(t, []bool{false, true}, p.arrive(t)) })
	require.NoError(t, s.Append(ctx, head, rec))
	reads(t, s, 1, rec)
	nothingStaged(t, url, 4)
}

func TestTheNextHolderClearsAwayTheBatchOfADeadOneAndNothingOfItComesBack(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"staged/", "/00000000", "/00000002", "/head\x00end"} {
		t.Run(where, func(t *testing.T) {
			url := testetcd.URL(t)
			p, zombie := tapped(t, url)
			next := open(t, url, etcd.Config{})
			head := claim(t, zombie)
			p.on(delayed, where)
			require.Error(t, zombie.Append(within(t, time.Minute), head, record(head, payloadOf(3*mib))))
			p.set(nil)

			now := claim(t, next)
			trim(t, next, now.Claim)
			nothingStaged(t, url, 0)
			require.Equal(t, []bool{false}, p.arrive(t))
			nothingStaged(t, url, 0)
			require.Equal(t, []driver.ID{head.Commit, now.Commit}, ids(t, next))
			commit(t, next, now, 1, payloadOf(2*mib))
			nothingStaged(t, url, 2)
		})
	}
}

func TestAZombieHearsWhileItStagesThatTheHeadHasMovedAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"staged/", "/00000001"} {
		url := testetcd.URL(t)
		p, zombie := tapped(t, url)
		next := open(t, url, etcd.Config{})
		head, chunks, claimed := claim(t, zombie), 0, false
		p.set(func(txn *pb.TxnRequest) fate {
			if writes(txn, where) && !claimed {
				claimed = true
				claim(t, next)
			}
			if writes(txn, "payload/") && !writes(txn, "staged/") {
				chunks++
			}
			return sound
		})
		err := zombie.Append(within(t, time.Minute), head, record(head, payloadOf(9*mib)))
		require.ErrorIs(t, err, driver.ErrConflict)
		require.LessOrEqual(t, chunks, 2)
		nothingStaged(t, url, 0)
	}
}

func TestALargeCommitThatIsRefusedInTheEndLeavesNothing(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, next := open(t, url, etcd.Config{}), open(t, url, etcd.Config{})
	head := claim(t, s)
	err := s.Append(atStaged(t, func() { claim(t, next) }), head, record(head, payloadOf(3*mib)))
	require.ErrorIs(t, err, driver.ErrConflict)
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
	nothingStaged(t, url, 0)
	require.Len(t, ids(t, s), 2)
}

func TestALargeCommitWaitsForAClaimUnderWay(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, rival := open(t, url, etcd.Config{}), open(t, url, etcd.Config{})
	head := claim(t, s)
	c, err := rival.Claim(within(t, time.Minute))
	require.NoError(t, err)
	done := make(chan error, 1)
	staged := make(chan struct{})
	ctx := atStaged(t, func() { close(staged) })
	rec := record(head, payloadOf(2*mib))
	go func() { done <- s.Append(ctx, head, rec) }()
	<-staged
	require.Never(t, func() bool { return len(done) > 0 }, 200*time.Millisecond, 20*time.Millisecond)
	c.Abandon()
	require.NoError(t, <-done)
	reads(t, s, 1, rec)
}

func TestABatchThatIsAboutToBePublishedIsNotClearedAway(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, next := open(t, url, etcd.Config{}), open(t, url, etcd.Config{})
	head := claim(t, s)
	rec := record(head, payloadOf(2*mib))
	require.NoError(t, s.Append(atStaged(t, func() {
		trim(t, s, head.Claim)
		resp, err := testetcd.Client(t, url).Get(t.Context(), testetcd.Prefix(t, url)+"/staged/", clientv3.WithPrefix())
		require.NoError(t, err)
		require.Len(t, resp.Kvs, 1)
		require.Contains(t, string(resp.Kvs[0].Value), `{"claim":"`+head.Claim.ID.String()+`","chunks":2,"bytes":2097152,`)
	}), head, rec), "a commit")
	head = head.After(rec)

	c, err := next.Claim(within(t, time.Minute))
	require.NoError(t, err)
	over, claimed := claimAfter(c.Head())
	claimed.Payload = []byte(payloadOf(3 * mib))
	require.NoError(t, c.Install(atStaged(t, func() { trim(t, s, head.Claim) }), over, claimed), "a claim over the one that trims")
	reads(t, s, 1, rec, claimed)
	trim(t, next, over)
	reads(t, s, 1, rec, claimed)
}

// It takes an administrator to bring that about, as no head comes back.
func TestABatchWhoseManifestWasRemovedIsNotPublished(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, client, prefix := open(t, url, etcd.Config{}), testetcd.Client(t, url), testetcd.Prefix(t, url)
	head := claim(t, s)
	remove := func() {
		_, err := client.Delete(t.Context(), prefix+"/staged/", clientv3.WithPrefix())
		require.NoError(t, err)
	}
	err := s.Append(atStaged(t, remove), head, record(head, payloadOf(2*mib)))
	require.ErrorIs(t, err, driver.ErrCorrupt)
	require.Len(t, ids(t, s), 1)

	c, err := s.Claim(within(t, time.Minute))
	require.NoError(t, err)
	next, rec := claimAfter(c.Head())
	rec.Payload = []byte(payloadOf(2 * mib))
	require.ErrorIs(t, c.Install(atStaged(t, remove), next, rec), driver.ErrConflict)
	require.Len(t, ids(t, s), 1)
}

func TestALargeClaimThatFailsIsClearedAwayAndOneThatLandedIsNot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fate  fate
		write string // whose fate it is
		lands bool
	}{
		"landed, and not answered":           {unanswered, "/head\x00end", true},
		"late":                               {delayed, "/head\x00end", false},
		"cut short":                          {unanswered, "/00000001", false},
		"cut short, and what was sent comes": {delayed, "/00000001", false},
		"not begun, and what was sent comes": {delayed, "staged/", false},
	} {
		t.Run(name, func(t *testing.T) {
			url := testetcd.URL(t)
			p, s := tapped(t, url)
			head := claim(t, s)
			c, err := s.Claim(within(t, time.Minute))
			require.NoError(t, err)
			next, rec := claimAfter(c.Head())
			rec.Payload = []byte(payloadOf(3 * mib))
			first := true
			p.set(func(txn *pb.TxnRequest) fate {
				if first && writes(txn, test.write) {
					first = false
					return test.fate
				}
				return sound
			})
			err = c.Install(within(t, time.Minute), next, rec)
			require.Equal(t, test.write == "/head\x00end", driver.OutcomeOf(err) == driver.Unknown, "%v", err)
			require.NoError(t, s.Close(), "which joins the clean-up")
			for _, applied := range p.arrive(t) {
				require.False(t, applied)
			}
			after := open(t, url, etcd.Config{})
			if test.lands {
				reads(t, after, head.Revision, rec)
				nothingStaged(t, url, 3)
				return
			}
			reads(t, after, head.Revision)
			nothingStaged(t, url, 0)
		})
	}
}

func TestALargeClaimIsRefusedWhereANoteChangedWhileItWasStaged(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, err := etcd.Open(t.Context(), url, etcd.Config{})
	require.NoError(t, err)
	c, err := s.Claim(within(t, time.Minute))
	require.NoError(t, err)
	next, rec := claimAfter(c.Head())
	rec.Payload = []byte(payloadOf(3 * mib))
	post := func() {
		_, err := s.Post(within(t, time.Minute), driver.Note{Key: "abort", Value: []byte("now")})
		require.NoError(t, err)
	}
	err = c.Install(atStaged(t, post), next, rec, driver.Note{Key: "abort"})
	require.ErrorIs(t, err, driver.ErrConflict)
	require.ErrorContains(t, err, "note")
	require.NoError(t, s.Close())
	nothingStaged(t, url, 0)
	head, err := open(t, url, etcd.Config{}).Head(within(t, time.Minute))
	require.NoError(t, err)
	require.True(t, head.IsZero())
}

func TestTheLogLosesTheChunksOfTheRecordsThatAreTrimmedAndNoOthers(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s := open(t, url, etcd.Config{})
	head := claim(t, s)
	var recs []driver.Record
	for range 3 {
		rec := record(head, payloadOf(2*mib))
		require.NoError(t, s.Append(within(t, time.Minute), head, rec))
		head, recs = head.After(rec), append(recs, rec)
	}
	kept := recs[1]
	require.NoError(t, s.Publish(within(t, time.Minute), head.Claim,
		driver.Snapshot{ID: driver.NewID(), Revision: kept.Revision, Commit: kept.ID, Token: kept.Token}))
	// A batch that waits for its commit, above them all.
	rec := record(head, payloadOf(2*mib))
	require.NoError(t, s.Append(atStaged(t, func() { trim(t, s, head.Claim) }), head, rec))
	nothingStaged(t, url, 6)
	reads(t, s, kept.Revision-1, recs[1], recs[2], rec)
}
