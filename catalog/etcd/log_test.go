package etcd_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func TestReadingGoesOnWhereEtcdCompactsTheRevisionThatIsRead(t *testing.T) {
	url := testetcd.URL(t)
	s, client := open(t, url, etcd.Config{}), testetcd.Client(t, url)
	head := commit(t, s, claim(t, s), 199, "x")
	var got []uint64
	compacted := false
	err := s.Log(within(t, time.Minute), 0, func(rec driver.Record) error {
		got = append(got, rec.Revision)
		if !compacted {
			compacted = true
			head = commit(t, s, head, 1, "y")
			compactHistory(t, client)
		}
		return nil
	})
	require.NoError(t, err)
	require.Len(t, got, 201)
	for i, revision := range got {
		require.Equal(t, uint64(i+1), revision)
	}
}

func TestLargeRecordsComeInSmallPages(t *testing.T) {
	t.Parallel()
	s := open(t, testetcd.URL(t), etcd.Config{})
	head := commit(t, s, claim(t, s), 80, "small")
	commit(t, s, head, 12, strings.Repeat("l", 1<<20))
	require.Len(t, ids(t, s), 93)
}

func TestTheCallersErrorEndsReadingAndComesBackAsItIs(t *testing.T) {
	t.Parallel()
	s := open(t, testetcd.URL(t), etcd.Config{})
	commit(t, s, claim(t, s), 2, "x")
	enough := errors.New("enough")
	require.Equal(t, enough, s.Log(within(t, time.Minute), 1, func(driver.Record) error { return enough }))
	require.Equal(t, enough, s.Claims(within(t, time.Minute), 0, func(driver.Claim) error { return enough }))
}

func TestAClaimReadsTheLogUpToItsHead(t *testing.T) {
	t.Parallel()
	s := open(t, testetcd.URL(t), etcd.Config{})
	commit(t, s, claim(t, s), 3, "x")
	claim(t, s)
	c, err := s.Claim(within(t, time.Minute))
	require.NoError(t, err)
	defer c.Abandon()
	var revisions []uint64
	require.NoError(t, c.Log(within(t, time.Minute), 2, func(rec driver.Record) error {
		revisions = append(revisions, rec.Revision)
		return nil
	}))
	require.Equal(t, []uint64{3, 4, 5}, revisions)

	var claims []uint64
	require.NoError(t, s.Claims(within(t, time.Minute), 0, func(c driver.Claim) error {
		claims = append(claims, c.Revision)
		return nil
	}))
	require.Equal(t, []uint64{1, 5}, claims)
}

func TestWhatNoVersionWroteAndWhatIsMissingIsCorruption(t *testing.T) {
	t.Parallel()
	head := func(s *etcd.Store, t *testing.T) error { _, err := s.Head(within(t, time.Minute)); return err }
	log := func(s *etcd.Store, t *testing.T) error {
		return s.Log(within(t, time.Minute), 0, func(driver.Record) error { return nil })
	}
	claims := func(s *etcd.Store, t *testing.T) error {
		return s.Claims(within(t, time.Minute), 0, func(driver.Claim) error { return nil })
	}
	begin := func(s *etcd.Store, t *testing.T) error { _, err := s.Claim(within(t, time.Minute)); return err }
	for name, test := range map[string]struct {
		put, remove string // a key beneath the prefix
		call        func(*etcd.Store, *testing.T) error
	}{
		"a foreign head":                   {put: "head", call: head},
		"a foreign head, at a claim":       {put: "head", call: begin},
		"a foreign head, at the log":       {put: "head", call: log},
		"a missing head":                   {remove: "head", call: head},
		"a missing head, at a claim":       {remove: "head", call: begin},
		"a missing head, at the log":       {remove: "head", call: log},
		"a foreign end":                    {put: "head\x00end", call: head},
		"a foreign end, at a claim":        {put: "head\x00end", call: begin},
		"a foreign end, at the log":        {put: "head\x00end", call: log},
		"a missing end":                    {remove: "head\x00end", call: head},
		"a missing end, at a claim":        {remove: "head\x00end", call: begin},
		"a missing end, at the log":        {remove: "head\x00end", call: log},
		"a gap in the log":                 {remove: "log/0000000000000002", call: log},
		"a log without its first record":   {remove: "log/0000000000000001", call: log},
		"a log without its newest record":  {remove: "log/0000000000000004", call: log},
		"a foreign record":                 {put: "log/0000000000000003", call: log},
		"a foreign key in the log":         {put: "log/x", call: log},
		"a foreign claim":                  {put: "claim/0000000000000001", call: claims},
		"a history without the head's own": {remove: "claim/0000000000000001", call: claims},
	} {
		t.Run(name, func(t *testing.T) {
			url := testetcd.URL(t)
			s, client, prefix := open(t, url, etcd.Config{}), testetcd.Client(t, url), testetcd.Prefix(t, url)
			commit(t, s, claim(t, s), 3, "x")
			require.NoError(t, test.call(s, t))
			_, err := client.Delete(t.Context(), prefix+"/"+test.remove+test.put)
			require.NoError(t, err)
			_, err = client.Delete(t.Context(), prefix+"/wanted")
			require.NoError(t, err)
			if test.put != "" {
				_, err = client.Put(t.Context(), prefix+"/"+test.put, "foreign")
				require.NoError(t, err)
			}
			err = test.call(s, t)
			require.ErrorIs(t, err, driver.ErrCorrupt)
			require.Equal(t, exitcodes.Panic, classed(t, err).Disposition())
			require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
		})
	}
}

// The head's two keys may be gone together: a claim on top of what is left would
// begin the catalog anew.
func TestWhatCannotBeWithoutAHeadKeepsAClaimOut(t *testing.T) {
	t.Parallel()
	for _, left := range []string{"token", "log/0000000000000001", "claim/0000000000000001"} {
		url := testetcd.URL(t)
		s, client, key := open(t, url, etcd.Config{}), testetcd.Client(t, url), testetcd.Prefix(t, url)+"/"+left
		claim(t, s)
		kept, err := client.Get(within(t, time.Minute), key)
		require.NoError(t, err)
		_, err = client.Delete(within(t, time.Minute), testetcd.Prefix(t, url)+"/", clientv3.WithPrefix())
		require.NoError(t, err)
		_, err = s.Head(within(t, time.Minute))
		require.NoError(t, err, "nothing is left")
		_, err = client.Put(within(t, time.Minute), key, string(kept.Kvs[0].Value))
		require.NoError(t, err)
		_, err = s.Head(within(t, time.Minute))
		require.ErrorIs(t, err, driver.ErrCorrupt, left)
		_, err = s.Claim(within(t, time.Minute))
		require.ErrorIs(t, err, driver.ErrCorrupt, left)
		logged := s.Log(within(t, time.Minute), 0, func(driver.Record) error { return nil })
		claimed := s.Claims(within(t, time.Minute), 0, func(driver.Claim) error { return nil })
		require.Equal(t, strings.HasPrefix(left, "log/"), errors.Is(logged, driver.ErrCorrupt), "%s: %v", left, logged)
		require.Equal(t, strings.HasPrefix(left, "claim/"), errors.Is(claimed, driver.ErrCorrupt), "%s: %v", left, claimed)
	}
}

func TestAnEndBelowItsClaimAndAClaimOfAnotherRevisionAreCorruption(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, client, prefix := open(t, url, etcd.Config{}), testetcd.Client(t, url), testetcd.Prefix(t, url)
	claim(t, s)
	claim(t, s)
	first, err := client.Get(within(t, time.Minute), prefix+"/claim/0000000000000001")
	require.NoError(t, err)
	_, err = client.Put(within(t, time.Minute), prefix+"/claim/0000000000000002", string(first.Kvs[0].Value))
	require.NoError(t, err)
	err = s.Claims(within(t, time.Minute), 0, func(driver.Claim) error { return nil })
	require.ErrorIs(t, err, driver.ErrCorrupt)
	_, err = client.Put(within(t, time.Minute), prefix+"/head\x00end", fmt.Sprintf("%016x-%s", 1, driver.NewID()))
	require.NoError(t, err)
	_, err = s.Head(within(t, time.Minute))
	require.ErrorIs(t, err, driver.ErrCorrupt)
}

func TestACommitOnAForeignHeadOrBeforeAStrayRecordIsCorruption(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, client, prefix := open(t, url, etcd.Config{}), testetcd.Client(t, url), testetcd.Prefix(t, url)
	head := claim(t, s)
	_, err := client.Put(t.Context(), prefix+"/log/0000000000000002", "stray")
	require.NoError(t, err)
	err = s.Append(within(t, time.Minute), head, record(head, "x"))
	require.ErrorIs(t, err, driver.ErrCorrupt)
	_, err = client.Put(t.Context(), prefix+"/head\x00end", "foreign")
	require.NoError(t, err)
	err = s.Append(within(t, time.Minute), head, record(head, "x"))
	require.ErrorIs(t, err, driver.ErrCorrupt)
	require.Equal(t, driver.NotApplied, driver.OutcomeOf(err))
}

func TestWhatLiesBeneathAnotherPrefixIsNotReadWithTheHead(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s, client, prefix := open(t, url, etcd.Config{}), testetcd.Client(t, url), testetcd.Prefix(t, url)
	head := commit(t, s, claim(t, s), 1, "x")
	for _, beneath := range []string{"/eu-west", "/green", "/head-office", "/heads"} {
		for n := range 3 { // together more than a client takes at once
			_, err := client.Put(t.Context(), fmt.Sprintf("%s%s/payload/%d", prefix, beneath, n), strings.Repeat("x", 1<<20))
			require.NoError(t, err)
		}
	}
	found, err := s.Head(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, head.Commit, found.Commit)
	commit(t, s, found, 1, "y")
}

// Whoever follows a log over a slow link must get one record after the other:
// a call that brings nothing for long is given up.
func TestTheFirstOfManyLargeRecordsComesBeforeTheOthersAreSent(t *testing.T) {
	t.Parallel()
	const count, size = 48, 1 << 20
	url := testetcd.URL(t)
	direct := open(t, url, etcd.Config{})
	commit(t, direct, claim(t, direct), count, strings.Repeat("l", size))
	p, through := startProxy(t, url)
	s := open(t, through, etcd.Config{})
	var before int64 // bytes that came before the first record
	got := 0
	require.NoError(t, s.Log(within(t, time.Minute), 1, func(driver.Record) error {
		if got++; got == 1 {
			before = p.answered.Load()
		}
		return nil
	}))
	require.Equal(t, count, got)
	require.Less(t, before, int64(count*size/2))
}
