package etcd_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// staged stages a snapshot of the log up to head in so many parts.
func staged(t *testing.T, s *etcd.Store, head driver.Head, parts int) driver.Snapshot {
	t.Helper()
	snapshot := driver.Snapshot{ID: driver.NewID(), Revision: head.Revision, Commit: head.Commit, Token: head.Claim.Token, Parts: parts}
	for n := range parts {
		require.NoError(t, s.Stage(within(t, time.Minute), head.Claim, snapshot.ID, n, part(snapshot, n)))
	}
	return snapshot
}

func part(s driver.Snapshot, n int) []byte { return fmt.Appendf(nil, "part %d of %v", n, s.ID) }

func published(t *testing.T, s *etcd.Store, head driver.Head, parts int) driver.Snapshot {
	t.Helper()
	snapshot := staged(t, s, head, parts)
	require.NoError(t, s.Publish(within(t, time.Minute), head.Claim, snapshot))
	return snapshot
}

// shows fails where the snapshot of url's catalog is not want, whole; zero
// means that there is none.
func shows(t *testing.T, url string, want driver.Snapshot) {
	t.Helper()
	n := 0
	require.NoError(t, open(t, url, etcd.Config{}).Snapshot(within(t, time.Minute), func(s driver.Snapshot, b []byte) error {
		require.Equal(t, want, s)
		require.Equal(t, string(part(want, n)), string(b))
		n++
		return nil
	}))
	require.Equal(t, want.Parts, n)
}

// history makes a catalog with a head at each of a few revisions.
func history(t *testing.T, s *etcd.Store, n int) []driver.Head {
	t.Helper()
	heads := []driver.Head{claim(t, s)}
	for range n {
		heads = append(heads, commit(t, s, heads[len(heads)-1], 1, "x"))
	}
	return heads
}

func unknown(t *testing.T, err error) {
	t.Helper()
	require.Equal(t, driver.Unknown, driver.OutcomeOf(err), "%v", err)
	require.Equal(t, retry, classed(t, err).Disposition())
}

func TestAStageThatComesBehindAClaimIsRefused(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	p, s := tapped(t, url)
	head := claim(t, s)
	p.on(delayed, "part/")
	unknown(t, s.Stage(within(t, time.Minute), head.Claim, driver.NewID(), 0, []byte("x")))
	p.set(nil)
	claim(t, open(t, url, etcd.Config{}))
	require.Equal(t, []bool{false}, p.arrive(t))
	require.Empty(t, keysBeneath(t, url, "part/"))
}

func TestAPublishThatComesLateNeverMovesTheSnapshotBack(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(t *testing.T, url string, s *etcd.Store, heads []driver.Head, late driver.Snapshot) driver.Snapshot{
		"behind a newer one": func(t *testing.T, _ string, s *etcd.Store, heads []driver.Head, _ driver.Snapshot) driver.Snapshot {
			return published(t, s, heads[3], 2)
		},
		"behind another claim": func(t *testing.T, url string, _ *etcd.Store, _ []driver.Head, _ driver.Snapshot) driver.Snapshot {
			claim(t, open(t, url, etcd.Config{}))
			return driver.Snapshot{}
		},
		"behind the Trim that took its parts": func(t *testing.T, _ string, s *etcd.Store, heads []driver.Head, _ driver.Snapshot) driver.Snapshot {
			trim(t, s, heads[0].Claim)
			return driver.Snapshot{}
		},
		"behind the Trim that took its parts, one of which came back late": func(t *testing.T, _ string, s *etcd.Store, heads []driver.Head, late driver.Snapshot) driver.Snapshot {
			trim(t, s, heads[0].Claim)
			require.NoError(t, s.Stage(within(t, time.Minute), heads[0].Claim, late.ID, 0, part(late, 0)))
			return driver.Snapshot{}
		},
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the first of all: %v", name, first), func(t *testing.T) {
				url := testetcd.URL(t)
				p, s := tapped(t, url)
				heads := history(t, s, 4)
				var before driver.Snapshot
				if !first {
					before = published(t, s, heads[1], 1)
				}
				late := staged(t, s, heads[2], 3)
				p.on(delayed, "snapshot")
				unknown(t, s.Publish(within(t, time.Minute), heads[0].Claim, late))
				p.set(nil)
				want := meanwhile(t, url, s, heads, late)
				if want.IsZero() {
					want = before
				}
				require.Equal(t, []bool{false}, p.arrive(t))
				shows(t, url, want)
			})
		}
	}
}

func TestASecondSnapshotOfOneRevisionIsRefused(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s := open(t, url, etcd.Config{})
	head := claim(t, s)
	first, second := published(t, s, head, 2), staged(t, s, head, 1)
	require.ErrorIs(t, s.Publish(within(t, time.Minute), head.Claim, second), driver.ErrConflict)
	shows(t, url, first)
}

func TestAPublishWhoseAnswerIsLostMayBeSentAgain(t *testing.T) {
	t.Parallel()
	for _, lost := range []fate{unanswered, delayed} {
		url := testetcd.URL(t)
		p, s := tapped(t, url)
		heads := history(t, s, 2)
		snapshot := staged(t, s, heads[1], 2)
		p.on(lost, "snapshot")
		unknown(t, s.Publish(within(t, time.Minute), heads[0].Claim, snapshot))
		p.set(nil)
		require.NoError(t, s.Publish(within(t, time.Minute), heads[0].Claim, snapshot))
		trim(t, s, heads[0].Claim)
		for _, applied := range p.arrive(t) {
			require.False(t, applied)
		}
		shows(t, url, snapshot)
	}
}

func TestATrimThatComesLateTakesNothingThatIsNeeded(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(t *testing.T, url string, s *etcd.Store, heads []driver.Head, listed driver.Snapshot){
		"behind the Publish of the parts that it lists": func(t *testing.T, _ string, s *etcd.Store, heads []driver.Head, listed driver.Snapshot) {
			require.NoError(t, s.Publish(within(t, time.Minute), heads[0].Claim, listed))
		},
		"behind another claim": func(t *testing.T, url string, _ *etcd.Store, _ []driver.Head, listed driver.Snapshot) {
			next := open(t, url, etcd.Config{})
			require.NoError(t, next.Publish(within(t, time.Minute), claim(t, next).Claim, listed))
		},
	} {
		for _, first := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, the first of all: %v", name, first), func(t *testing.T) {
				url := testetcd.URL(t)
				p, s := tapped(t, url)
				heads := history(t, s, 4)
				if !first {
					published(t, s, heads[1], 1)
				}
				listed := staged(t, s, heads[3], 2)
				p.on(delayed, "part/")
				_, err := s.Trim(within(t, time.Minute), heads[0].Claim)
				unknown(t, err)
				p.set(nil)
				meanwhile(t, url, s, heads, listed)
				require.Equal(t, []bool{false}, p.arrive(t))
				shows(t, url, listed)
			})
		}
	}
}

func TestATrimOfAZombieIsRefusedThoughNothingElseHasChanged(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	p, s := tapped(t, url)
	heads := history(t, s, 4)
	published(t, s, heads[3], 1)
	p.on(delayed, "log/")
	_, err := s.Trim(within(t, time.Minute), heads[0].Claim)
	unknown(t, err)
	p.set(nil)
	claim(t, open(t, url, etcd.Config{}))
	require.Equal(t, []bool{false}, p.arrive(t))
	require.Len(t, ids(t, s), 6)
}

func TestATrimWhoseAnswerIsLostGoesOnWhenItIsCalledAgain(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	p, s := tapped(t, url)
	heads := history(t, s, 4)
	staged(t, s, heads[1], 2)
	snapshot := published(t, s, heads[3], 1)
	p.on(unanswered, "log/")
	_, err := s.Trim(within(t, time.Minute), heads[0].Claim)
	unknown(t, err)
	p.set(nil)
	more, err := s.Trim(within(t, time.Minute), heads[0].Claim)
	require.NoError(t, err)
	require.False(t, more)
	require.Len(t, keysBeneath(t, url, "log/"), 2)
	require.Len(t, keysBeneath(t, url, "part/"), 1)
	shows(t, url, snapshot)
}

// By a manifest that is gone, a Trim that comes late knows that the chunks are
// not those that it saw.
func TestATrimTakesChunksOnlyWithTheirManifest(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	p, s := tapped(t, url)
	client, prefix := testetcd.Client(t, url), testetcd.Prefix(t, url)
	head := claim(t, s)
	p.on(delayed, "/00000002")
	notApplied(t, s.Append(within(t, time.Minute), head, record(head, payloadOf(3*mib))))
	p.set(nil)
	head = commit(t, s, head, 1, "another")
	require.Len(t, keysBeneath(t, url, "payload/"), 2)
	p.on(delayed, "payload/")
	_, err := s.Trim(within(t, time.Minute), head.Claim)
	unknown(t, err)
	p.set(nil)
	_, err = client.Delete(t.Context(), prefix+"/staged/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.Equal(t, []bool{false, false}, p.arrive(t))
	require.Len(t, keysBeneath(t, url, "payload/"), 2)
}

func TestManyOrphansAreClearedAwayByAndBy(t *testing.T) {
	t.Parallel()
	const orphans = 40
	url := testetcd.URL(t)
	p, s := tapped(t, url)
	head := claim(t, s)
	p.on(delayed, "/00000001")
	for range orphans {
		require.Error(t, s.Append(within(t, time.Minute), head, record(head, payloadOf(mib+1))))
		staged(t, s, head, 1)
	}
	p.set(nil)
	head = commit(t, s, head, 20, "x")
	snapshot := published(t, s, head, 2)
	require.Len(t, keysBeneath(t, url, "staged/"), orphans)
	calls := 0
	for more := true; more; calls++ {
		var err error
		more, err = s.Trim(within(t, time.Minute), head.Claim)
		require.NoError(t, err)
	}
	require.Equal(t, 3, calls)
	nothingStaged(t, url, 0)
	require.Len(t, keysBeneath(t, url, "part/"), 2)
	require.Len(t, idsAbove(t, s, head.Revision-1), 1)
	shows(t, url, snapshot)
}

func TestASnapshotIsReadToItsEndThoughEtcdCompactsItsRevision(t *testing.T) {
	url := testetcd.URL(t)
	s, client := open(t, url, etcd.Config{}), testetcd.Client(t, url)
	head := claim(t, s)
	snapshot := published(t, s, head, 11)
	n := 0
	require.NoError(t, s.Snapshot(within(t, time.Minute), func(got driver.Snapshot, b []byte) error {
		require.Equal(t, snapshot, got)
		require.Equal(t, string(part(snapshot, n)), string(b))
		if n++; n == 2 {
			commit(t, s, head, 1, "x")
			compactHistory(t, client)
		}
		return nil
	}))
	require.Equal(t, 11, n)
}

// Otherwise a reader would get half of each.
func TestASnapshotThatIsReplacedWhileItIsReadIsReadToItsEndOrNotAtAll(t *testing.T) {
	for _, forgotten := range []bool{false, true} {
		url := testetcd.URL(t)
		s, client := open(t, url, etcd.Config{}), testetcd.Client(t, url)
		heads := history(t, s, 2)
		older, n := published(t, s, heads[1], 11), 0
		err := s.Snapshot(within(t, time.Minute), func(got driver.Snapshot, b []byte) error {
			require.Equal(t, older, got)
			if n++; n == 2 {
				published(t, s, heads[2], 11)
				trim(t, s, heads[0].Claim)
				if forgotten {
					compactHistory(t, client)
				}
			}
			return nil
		})
		if !forgotten {
			require.NoError(t, err)
			require.Equal(t, 11, n)
			continue
		}
		require.ErrorContains(t, err, "was replaced")
		notApplied(t, err)
		require.Less(t, n, 11)
	}
}

// compactHistory makes etcd forget every revision but the newest. On the server
// that tests share, that is the history of all of them: a test that does it there
// does not run in parallel.
func compactHistory(t *testing.T, client *clientv3.Client) {
	t.Helper()
	resp, err := client.Get(t.Context(), "any")
	require.NoError(t, err)
	_, err = client.Compact(t.Context(), resp.Header.Revision)
	require.NoError(t, err)
}

func TestASnapshotThatIsSpoiltIsCorruption(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ put, remove string }{
		"a foreign snapshot": {put: "snapshot"},
		"a missing part":     {remove: "part/%v/00000001"},
		"no first part":      {remove: "part/%v/00000000"},
		"no last part":       {remove: "part/%v/00000002"},
	} {
		t.Run(name, func(t *testing.T) {
			url := testetcd.URL(t)
			s, client, prefix := open(t, url, etcd.Config{}), testetcd.Client(t, url), testetcd.Prefix(t, url)+"/"
			head := claim(t, s)
			snapshot := published(t, s, head, 3)
			var err error
			if test.put != "" {
				_, err = client.Put(t.Context(), prefix+test.put, "foreign")
			} else {
				_, err = client.Delete(t.Context(), prefix+fmt.Sprintf(test.remove, snapshot.ID))
			}
			require.NoError(t, err)
			err = s.Snapshot(within(t, time.Minute), func(driver.Snapshot, []byte) error { return nil })
			require.ErrorIs(t, err, driver.ErrCorrupt)
			require.Equal(t, exitcodes.Panic, classed(t, err).Disposition())
			if test.put != "" {
				_, err = s.Trim(within(t, time.Minute), head.Claim)
				require.ErrorIs(t, err, driver.ErrCorrupt)
				require.ErrorIs(t, s.Publish(within(t, time.Minute), head.Claim, snapshot), driver.ErrCorrupt)
				require.ErrorIs(t, s.Log(within(t, time.Minute), 0, func(driver.Record) error { return nil }), driver.ErrCorrupt)
			}
		})
	}
}

func TestALogWithoutTheCommitOfItsSnapshotIsCorruption(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, client := open(t, url, etcd.Config{}), testetcd.Client(t, url)
	heads := history(t, s, 4)
	published(t, s, heads[3], 1)
	trim(t, s, heads[0].Claim)
	err := s.Log(within(t, time.Minute), 1, func(driver.Record) error { return nil })
	require.ErrorIs(t, err, driver.ErrCompacted)
	require.Equal(t, exitcodes.None, classed(t, err).Disposition())
	for _, remove := range []string{"/log/0000000000000004", "/log/"} {
		_, err = client.Delete(t.Context(), testetcd.Prefix(t, url)+remove, clientv3.WithPrefix())
		require.NoError(t, err)
		err = s.Log(within(t, time.Minute), heads[3].Revision-1, func(driver.Record) error { return nil })
		require.ErrorIs(t, err, driver.ErrCorrupt, remove)
	}
}

func TestAHolderWhoseNameIsNotUTF8Compacts(t *testing.T) {
	t.Parallel()
	s := open(t, testetcd.URL(t), etcd.Config{})
	c, err := s.Claim(within(t, time.Minute))
	require.NoError(t, err)
	next, rec := claimAfter(c.Head())
	next.Holder.Name = "h\xffst"
	require.NoError(t, c.Install(within(t, time.Minute), next, rec))
	published(t, s, next.Head(), 1)
	head, err := s.Head(within(t, time.Minute))
	require.NoError(t, err)
	published(t, s, commit(t, s, head, 1, "as it was read"), 1)
}
