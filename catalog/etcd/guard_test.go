package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/testetcd"
)

// A guardedRows is a catalog, beside which a client writes under a guard.
type guardedRows struct {
	t      *testing.T
	store  *etcd.Store
	client *clientv3.Client
	prefix string // of the catalog
	rows   string
}

func newGuardedRows(t *testing.T) *guardedRows {
	url := testetcd.URL(t)
	return &guardedRows{
		t: t, store: open(t, url+"/catalog", etcd.Config{}), client: testetcd.Client(t, url),
		prefix: testetcd.Prefix(t, url) + "/catalog", rows: testetcd.Prefix(t, url) + "/rows/",
	}
}

func (g *guardedRows) kv(token fence.Token) *etcd.GuardedKV {
	g.t.Helper()
	kv, err := etcd.GuardKV(within(g.t, time.Minute), g.client, g.prefix, token)
	require.NoError(g.t, err)
	return kv
}

// values returns all rows.
func (g *guardedRows) values() map[string]string {
	g.t.Helper()
	resp, err := g.client.Get(within(g.t, time.Minute), g.rows, clientv3.WithPrefix())
	require.NoError(g.t, err)
	all := map[string]string{}
	for _, kv := range resp.Kvs {
		all[strings.TrimPrefix(string(kv.Key), g.rows)] = string(kv.Value)
	}
	return all
}

func tokenOf(g generation.Generation, e epoch.Epoch) fence.Token {
	return fence.Token{Generation: g, Epoch: e}
}

// refusedAs fails where err is not the refusal of a stale token.
func refusedAs(t *testing.T, err error, held, current fence.Token) {
	t.Helper()
	var fenced *fence.Error
	require.ErrorAs(t, etcd.Refusal(err), &fenced, "%v", err)
	require.Equal(t, held, fenced.Held)
	require.Equal(t, current, fenced.Current)
	require.Equal(t, "holder", fenced.By.Name)
	require.ErrorIs(t, err, fence.ErrFenced)
	require.NotErrorIs(t, err, fence.ErrSuperseded, "it is a hint")
	require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
}

// notAToken fails where err is not a refusal of its own.
func notAToken(t *testing.T, err, why error) {
	t.Helper()
	var refused *fence.TokenError
	require.ErrorAs(t, etcd.Refusal(err), &refused, "%v", err)
	require.ErrorIs(t, err, why)
	require.NotErrorIs(t, err, fence.ErrFenced)
	require.Equal(t, exitcodes.None, exitcodes.Of(err))
	require.Less(t, len(err.Error()), 500)
}

// Behind a refusal nothing is sent any more: the claim that refused the token
// stays in the way for ever.
func TestBehindARefusalNothingIsSent(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	first := claimBy(t, g.store, 1).Token
	sent := &counting{KV: g.client.KV}
	kv, err := etcd.GuardKV(within(t, time.Minute), sent, g.prefix, first)
	require.NoError(t, err)
	second := claimBy(t, g.store, 1).Token
	for range 3 {
		_, err := kv.Put(within(t, time.Minute), g.rows+"a", "stale")
		refusedAs(t, err, first, second)
		require.Equal(t, 1, sent.writes, "one round trip says both that and why it is refused")
	}
}

type counting struct {
	clientv3.KV
	writes int
}

func (c *counting) Txn(ctx context.Context) clientv3.Txn {
	c.writes++
	return c.KV.Txn(ctx)
}

func TestATokenThatIsMissingMalformedOrWasNeverIssuedIsARefusalOfItsOwn(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	ctx := within(t, time.Minute)
	guard := func(prefix string, token fence.Token) error {
		live, err := etcd.Guard(ctx, g.client, prefix, token)
		require.Error(t, err)
		_, kvErr := etcd.GuardKV(ctx, g.client, prefix, token)
		require.Equal(t, err.Error(), kvErr.Error())
		_, sent := g.client.Txn(ctx).If(live).Then(clientv3.OpPut(g.rows+"a", "unguarded")).Commit()
		require.ErrorIs(t, sent, rpctypes.ErrEmptyKey, "whoever overlooks the error writes nothing")
		return err
	}
	notAToken(t, guard(g.prefix, tokenOf(1, 1)), fence.ErrNeverIssued)
	claimBy(t, g.store, 1) // g1.e1
	claimBy(t, g.store, 3) // g3.e2
	claimBy(t, g.store, 3) // g3.e3
	notAToken(t, guard(g.prefix, fence.Token{}), fence.ErrMissing)
	for _, token := range []fence.Token{tokenOf(3, 4), tokenOf(9, 1), tokenOf(generation.Max, epoch.Max), tokenOf(2, 2), tokenOf(1, 2), tokenOf(3, 0), tokenOf(0, 3), tokenOf(3, 1)} {
		err := guard(g.prefix, token)
		notAToken(t, err, fence.ErrNeverIssued)
		require.ErrorContains(t, err, "the newest is g3.e3")
	}
	for _, token := range []fence.Token{tokenOf(generation.Max+1, 1), tokenOf(1, epoch.Max+1), tokenOf(^generation.Generation(0), ^epoch.Epoch(0))} {
		notAToken(t, guard(g.prefix, token), fence.ErrMalformed)
	}
	refusedAs(t, guard(g.prefix, tokenOf(1, 1)), tokenOf(1, 1), tokenOf(3, 3))
	refusedAs(t, guard(g.prefix, tokenOf(3, 2)), tokenOf(3, 2), tokenOf(3, 3))
	elsewhere := guard(g.prefix+"x", tokenOf(3, 3))
	notAToken(t, elsewhere, fence.ErrNeverIssued)
	require.ErrorContains(t, elsewhere, "check the prefix")
	require.Equal(t, exitcodes.Config, classed(t, guard("", tokenOf(3, 3))).ExitCode())
	_, err := etcd.Guard(ctx, g.client, g.prefix+"/", tokenOf(3, 3))
	require.NoError(t, err, "as in a URL")
	require.Empty(t, g.values())
	require.NoError(t, etcd.Refusal(nil))
	require.NoError(t, etcd.Refusal(errors.New("another")))
	require.NoError(t, etcd.Refusal(fence.Check(tokenOf(1, 1), tokenOf(2, 2), fence.Holder{})), "of the head, and of no guard")
}

// The history is read in pages.
func TestAStaleTokenIsFoundInALongHistory(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	ctx, first := within(t, time.Minute), claimBy(t, g.store, 1)
	newest := claimBy(t, g.store, 3)
	var ops []clientv3.Op
	for i := range 1200 {
		c := first
		c.Token, c.Revision = tokenOf(2, epoch.Epoch(i+1)), uint64(i+100)
		text, err := driver.MarshalClaim(c)
		require.NoError(t, err)
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s/claim/%016x", g.prefix, c.Revision), string(text)))
		if len(ops) == 100 {
			_, err := g.client.Txn(ctx).Then(ops...).Commit()
			require.NoError(t, err)
			ops = nil
		}
	}
	_, err := etcd.Guard(ctx, g.client, g.prefix, tokenOf(2, 1200))
	refusedAs(t, err, tokenOf(2, 1200), newest.Token)
	_, err = etcd.Guard(ctx, g.client, g.prefix, tokenOf(2, 1201))
	notAToken(t, err, fence.ErrNeverIssued)
}

// A cluster that was restored has issued revisions, and perhaps tokens, again.
func TestWhatWasIssuedBeforeARestoreGuardsNothingBehindIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		restored func(lost driver.Claim) *driver.Claim
		why      string
	}{
		"to a lower token": {func(driver.Claim) *driver.Claim { return nil }, "its newest is g1.e1"},
		"and claimed by another process that got the same token": {func(lost driver.Claim) *driver.Claim {
			lost.ID, lost.Holder.Name = driver.NewID(), "another"
			return &lost
		}, "issued it to another claim"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuardedRows(t)
			ctx, key := within(t, time.Minute), g.prefix+"/token"
			claimBy(t, g.store, 1)
			backup, err := g.client.Get(ctx, key)
			require.NoError(t, err)
			lost := claimBy(t, g.store, 2)
			kv := g.kv(lost.Token)
			restored := string(backup.Kvs[0].Value)
			if c := test.restored(lost); c != nil {
				text, err := driver.MarshalClaim(*c)
				require.NoError(t, err)
				restored = string(text)
			}
			_, err = g.client.Put(ctx, key, restored)
			require.NoError(t, err)
			_, err = kv.Put(ctx, g.rows+"a", "of a lost claim")
			notAToken(t, err, fence.ErrNeverIssued)
			require.ErrorContains(t, err, test.why)
			require.NoError(t, kv.Refused(), "nothing says that it is stale")
			require.Empty(t, g.values())
			_, err = g.client.Delete(ctx, key)
			require.NoError(t, err)
			_, err = kv.Put(ctx, g.rows+"a", "of no claim")
			notAToken(t, err, fence.ErrNeverIssued)
			require.Empty(t, g.values())
		})
	}
}

// Two servers with the same history but for the newest claim stand for a cluster
// before and behind a restore.
func TestARevisionThatIsIssuedAgainBehindARestoreGuardsNothing(t *testing.T) {
	t.Parallel()
	moved := &moving{}
	var revisions []int64
	for range 2 {
		server := testetcd.NewServer(t, testetcd.Options{})
		store, client := open(t, server.URL(), etcd.Config{}), testetcd.Client(t, server.URL())
		claimBy(t, store, 1)
		claimBy(t, store, 2)
		resp, err := client.Get(within(t, time.Minute), "catalog/token")
		require.NoError(t, err)
		revisions = append(revisions, resp.Kvs[0].ModRevision)
		moved.servers = append(moved.servers, client)
	}
	require.Equal(t, revisions[0], revisions[1])
	kv, err := etcd.GuardKV(within(t, time.Minute), moved, "catalog", tokenOf(2, 2))
	require.NoError(t, err)
	_, err = kv.Put(within(t, time.Minute), "a", "before")
	require.NoError(t, err)
	moved.servers = moved.servers[1:]
	_, err = kv.Put(within(t, time.Minute), "a", "behind")
	notAToken(t, err, fence.ErrNeverIssued)
}

// A moving KV is that of one server, and then of the next.
type moving struct {
	clientv3.KV
	servers []*clientv3.Client
}

func (m *moving) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return m.servers[0].Get(ctx, key, opts...)
}

func (m *moving) Txn(ctx context.Context) clientv3.Txn { return m.servers[0].Txn(ctx) }

func TestATokenKeyThatHoldsNoClaimRefusesEverythingAndIsShownInPart(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	ctx, token := within(t, time.Minute), claimBy(t, g.store, 1).Token
	kv := g.kv(token)
	for _, value := range []string{"", "x", "{}", strings.Repeat(`{"token":"g1.e1"`, 10_000), "\x00\xff"} {
		_, err := g.client.Put(ctx, g.prefix+"/token", value)
		require.NoError(t, err)
		_, err = kv.Put(ctx, g.rows+"a", "unguarded")
		require.ErrorIs(t, err, driver.ErrCorrupt)
		require.Less(t, len(err.Error()), 500)
		_, err = etcd.Guard(ctx, g.client, g.prefix, token)
		require.ErrorIs(t, err, driver.ErrCorrupt)
		require.NoError(t, etcd.Refusal(err))
	}
	require.Empty(t, g.values())
}

// What a guard refuses, the head explains.
func TestARefusalIsAHintThatTheCatalogExplains(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	ctx := within(t, time.Minute)
	old, err := catalog.Open(ctx, g.store, catalog.Config{Generation: 1})
	require.NoError(t, err)
	t.Cleanup(func() { _ = old.Close() })
	kv := g.kv(old.Token())
	_, err = kv.Put(ctx, g.rows+"a", "v")
	require.NoError(t, err)
	newer, err := catalog.Open(ctx, open(t, "etcd://"+strings.TrimPrefix(g.client.Endpoints()[0], "http://")+"/"+g.prefix, etcd.Config{}), catalog.Config{Generation: 2})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, newer.Close()) })
	_, err = kv.Put(ctx, g.rows+"a", "stale")
	require.Equal(t, exitcodes.Halt, exitcodes.Of(err))
	require.Equal(t, exitcodes.GracefulExit, exitcodes.Of(old.Explain(ctx, err)))
}
