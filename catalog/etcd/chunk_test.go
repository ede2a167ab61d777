package etcd_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func TestAMissingOrAForeignChunkIsCorruption(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(ctx context.Context, client *clientv3.Client, dir string) error{
		"the first is missing": func(ctx context.Context, client *clientv3.Client, dir string) error {
			_, err := client.Delete(ctx, dir+"/00000000")
			return err
		},
		"the last is missing": func(ctx context.Context, client *clientv3.Client, dir string) error {
			_, err := client.Delete(ctx, dir+"/00000005")
			return err
		},
		"one is short": func(ctx context.Context, client *clientv3.Client, dir string) error {
			_, err := client.Put(ctx, dir+"/00000001", "short")
			return err
		},
		"one stands elsewhere": func(ctx context.Context, client *clientv3.Client, dir string) error {
			resp, err := client.Get(ctx, dir+"/00000001")
			if err != nil {
				return err
			}
			if _, err := client.Put(ctx, dir+"/00000007", string(resp.Kvs[0].Value)); err != nil {
				return err
			}
			_, err = client.Delete(ctx, dir+"/00000001")
			return err
		},
		"one too many": func(ctx context.Context, client *clientv3.Client, dir string) error {
			_, err := client.Put(ctx, dir+"/00000006", "x")
			return err
		},
		"all are missing": func(ctx context.Context, client *clientv3.Client, dir string) error {
			_, err := client.Delete(ctx, dir+"/", clientv3.WithPrefix())
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := testetcd.URL(t)
			s, client := open(t, url, etcd.Config{}), testetcd.Client(t, url)
			head := commit(t, s, claim(t, s), 1, payloadOf(6*mib))
			dir := testetcd.Prefix(t, url) + "/payload/0000000000000002/" + head.Commit.String()
			require.NoError(t, spoil(t.Context(), client, dir))
			err := s.Log(within(t, time.Minute), 0, func(driver.Record) error { return nil })
			require.ErrorIs(t, err, driver.ErrCorrupt)
			require.Equal(t, exitcodes.Panic, classed(t, err).Disposition())
		})
	}
}

func TestALargeRecordIsReadThoughEtcdCompactsTheRevisionBetweenItsChunks(t *testing.T) {
	url := testetcd.URL(t)
	s, client := open(t, url, etcd.Config{}), testetcd.Client(t, url)
	head := commit(t, s, claim(t, s), 1, "small")
	head = commit(t, s, head, 2, payloadOf(6*mib))
	commit(t, s, head, 1, "small again")
	compacted := false
	var sizes []int
	require.NoError(t, s.Log(within(t, time.Minute), 0, func(rec driver.Record) error {
		if sizes = append(sizes, len(rec.Payload)); len(sizes) == 3 && !compacted {
			compacted = true
			_, err := client.Put(t.Context(), testetcd.Prefix(t, url)+"/board/x", "y")
			require.NoError(t, err)
			compactHistory(t, client)
		}
		return nil
	}))
	require.Equal(t, []int{len("claim"), len("small"), 6 * mib, 6 * mib, len("small again")}, sizes)
}

// Chunks lie outside of what a watch asks for: else every follower would get
// them twice.
func TestNoChunkComesOverAWatch(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	direct := open(t, url, etcd.Config{})
	head := claim(t, direct)
	p, through := startProxy(t, url)
	s := open(t, through, etcd.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	wakes, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- s.Watch(ctx, func() { wakes <- struct{}{} }) }()
	<-wakes
	before := p.answered.Load()
	commit(t, direct, head, 1, payloadOf(4*mib))
	<-wakes
	require.Less(t, p.answered.Load()-before, int64(mib))
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

func TestAClientThatReceivesLittleAtOnceReadsLargeRecordsAndSnapshots(t *testing.T) {
	t.Parallel()
	url := testetcd.URL(t)
	s := open(t, url, etcd.Config{})
	head := claim(t, s)
	rec := record(head, payloadOf(6*mib))
	require.NoError(t, s.Append(within(t, time.Minute), head, rec))
	head = head.After(rec)
	snapshot := driver.Snapshot{ID: driver.NewID(), Revision: head.Revision, Commit: head.Commit, Token: head.Claim.Token, Parts: 6}
	for n := range snapshot.Parts {
		require.NoError(t, s.Stage(within(t, time.Minute), head.Claim, snapshot.ID, n, []byte(payloadOf(driver.MaxPart))))
	}
	require.NoError(t, s.Publish(within(t, time.Minute), head.Claim, snapshot))

	client, err := clientv3.New(clientv3.Config{
		Endpoints: testetcd.Client(t, url).Endpoints(), MaxCallRecvMsgSize: 2 * mib, MaxUnaryRetries: 1, Logger: zap.NewNop(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	narrow := open(t, "etcd:///"+testetcd.Prefix(t, url), etcd.Config{Client: client})
	reads(t, narrow, 1, rec)
	parts := 0
	require.NoError(t, narrow.Snapshot(within(t, time.Minute), func(driver.Snapshot, []byte) error { parts++; return nil }))
	require.Equal(t, 6, parts)
}
