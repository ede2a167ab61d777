package etcd_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/namespace"

	"github.com/fencepost/fencepost/catalog/etcd"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testetcd"
)

func TestEveryWriteOfALiveHolderIsAnsweredAsWithoutAGuard(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	kv := g.kv(claimBy(t, g.store, 1).Token)
	plain, ctx := g.client, within(t, time.Minute)
	lease, err := g.client.Grant(ctx, 600)
	require.NoError(t, err)
	row := func(name string) string { return g.rows + name }
	there := clientv3.Compare(clientv3.Version(row("a")), ">", 0)
	gone := clientv3.Compare(clientv3.Version(row("a")), "=", 0)
	nested := clientv3.OpTxn([]clientv3.Cmp{gone}, []clientv3.Op{clientv3.OpGet(row("b"))}, []clientv3.Op{clientv3.OpDelete(row("b"), clientv3.WithPrevKV()), clientv3.OpGet(row("a"))})
	puts := []clientv3.Op{clientv3.OpPut(row("a"), "2", clientv3.WithPrevKV()), clientv3.OpGet(row("a")), nested}
	for name, op := range map[string]clientv3.Op{
		"put":                            clientv3.OpPut(row("a"), "1"),
		"put with previous":              clientv3.OpPut(row("a"), "1", clientv3.WithPrevKV()),
		"put with lease":                 clientv3.OpPut(row("c"), "1", clientv3.WithLease(lease.ID)),
		"put that keeps the value":       clientv3.OpPut(row("a"), "", clientv3.WithIgnoreValue()),
		"put of no key":                  clientv3.OpPut("", "1"),
		"put with no such lease":         clientv3.OpPut(row("a"), "1", clientv3.WithLease(1)),
		"put that keeps nothing":         clientv3.OpPut(row("none"), "", clientv3.WithIgnoreValue()),
		"delete":                         clientv3.OpDelete(row("a"), clientv3.WithPrevKV()),
		"delete of none":                 clientv3.OpDelete(row("none")),
		"delete of all":                  clientv3.OpDelete(row(""), clientv3.WithPrefix(), clientv3.WithPrevKV()),
		"get":                            clientv3.OpGet(row(""), clientv3.WithPrefix()),
		"txn of nothing":                 clientv3.OpTxn(nil, nil, nil),
		"txn":                            clientv3.OpTxn(nil, puts, nil),
		"txn with an else":               clientv3.OpTxn(nil, puts, puts),
		"txn that holds":                 clientv3.OpTxn([]clientv3.Cmp{there}, puts, nil),
		"txn that fails":                 clientv3.OpTxn([]clientv3.Cmp{gone}, puts, nil),
		"txn that fails and reads":       clientv3.OpTxn([]clientv3.Cmp{there, gone}, puts, []clientv3.Op{clientv3.OpGet(row("a")), clientv3.OpGet(row("b"))}),
		"txn that holds, or else writes": clientv3.OpTxn([]clientv3.Cmp{there}, puts, []clientv3.Op{clientv3.OpPut(row("b"), "else")}),
		"txn that fails and writes":      clientv3.OpTxn([]clientv3.Cmp{gone}, nil, puts),
		"txn that only reads":            clientv3.OpTxn([]clientv3.Cmp{there}, []clientv3.Op{clientv3.OpGet(row("a"))}, []clientv3.Op{clientv3.OpGet(row("b"))}),
		"txn that puts a key twice":      clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut(row("a"), "1"), clientv3.OpPut(row("a"), "2")}, nil),
	} {
		var answers, rows []string
		for _, kv := range []clientv3.KV{plain, kv} {
			_, err := plain.Delete(ctx, g.rows, clientv3.WithPrefix())
			require.NoError(t, err)
			_, err = plain.Put(ctx, row("a"), "first")
			require.NoError(t, err)
			last, err := plain.Put(ctx, row("b"), "first")
			require.NoError(t, err)
			resp, err := kv.Do(ctx, op)
			answers = append(answers, g.answer(resp, err, last.Header.Revision))
			rows = append(rows, fmt.Sprint(g.values()))
		}
		require.Equal(t, answers[0], answers[1], name)
		require.Equal(t, rows[0], rows[1], name)
	}
}

// answer shows an answer. Others write to the server, too, so that of its revision it
// shows how many rows have it, unless they had it before.
func (g *guardedRows) answer(resp clientv3.OpResponse, err error, before int64) string {
	var text strings.Builder
	header := func(h *pb.ResponseHeader) {
		of := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMinModRev(max(h.Revision, before+1)), clientv3.WithMaxModRev(h.Revision)}
		rows, err := g.client.Get(within(g.t, time.Minute), g.rows, of...)
		require.NoError(g.t, err)
		fmt.Fprintf(&text, "%d rows of %x in term %d: ", len(rows.Kvs), h.ClusterId, h.RaftTerm)
	}
	switch {
	case resp.Put() != nil:
		header(resp.Put().Header)
		fmt.Fprintf(&text, "%q", resp.Put().PrevKv.GetValue())
	case resp.Del() != nil:
		header(resp.Del().Header)
		fmt.Fprint(&text, resp.Del().Deleted, len(resp.Del().PrevKvs))
	case resp.Get() != nil:
		header(resp.Get().Header)
		fmt.Fprint(&text, resp.Get().Count)
	case resp.Txn() != nil:
		header(resp.Txn().Header)
		fmt.Fprint(&text, resp.Txn().Succeeded)
		for _, r := range resp.Txn().Responses {
			fmt.Fprintf(&text, " %T %d %d %q %v", r.Response, len(r.GetResponseRange().GetKvs()), r.GetResponseDeleteRange().GetDeleted(),
				r.GetResponsePut().GetPrevKv().GetValue(), r.GetResponseTxn().GetSucceeded())
		}
	}
	return fmt.Sprint(text.String(), " ", err)
}

func TestAStaleHolderIsRefusedByWhateverItWritesAndReadsOn(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	first := claimBy(t, g.store, 1).Token
	_, err := g.client.Put(within(t, time.Minute), g.rows+"a", "first")
	require.NoError(t, err)
	ctx, never := within(t, time.Minute), clientv3.Compare(clientv3.Version(g.rows+"none"), ">", 0)
	put := clientv3.OpPut(g.rows+"a", "stale")
	writes := map[string]func(kv clientv3.KV) error{
		"put":       func(kv clientv3.KV) error { _, err := kv.Put(ctx, g.rows+"a", "stale"); return err },
		"delete":    func(kv clientv3.KV) error { _, err := kv.Delete(ctx, g.rows+"a"); return err },
		"do put":    func(kv clientv3.KV) error { _, err := kv.Do(ctx, put); return err },
		"do delete": func(kv clientv3.KV) error { _, err := kv.Do(ctx, clientv3.OpDelete(g.rows+"a")); return err },
		"do txn": func(kv clientv3.KV) error {
			_, err := kv.Do(ctx, clientv3.OpTxn(nil, []clientv3.Op{put}, nil))
			return err
		},
		"txn":         func(kv clientv3.KV) error { _, err := kv.Txn(ctx).Then(put).Commit(); return err },
		"empty txn":   func(kv clientv3.KV) error { _, err := kv.Txn(ctx).Commit(); return err },
		"txn reading": func(kv clientv3.KV) error { _, err := kv.Txn(ctx).Then(clientv3.OpGet(g.rows)).Commit(); return err },
		"else":        func(kv clientv3.KV) error { _, err := kv.Txn(ctx).If(never).Else(put).Commit(); return err },
		"else, reading": func(kv clientv3.KV) error {
			_, err := kv.Txn(ctx).If(never).Then(put).Else(clientv3.OpGet(g.rows)).Commit()
			return err
		},
		"else, nested": func(kv clientv3.KV) error {
			_, err := kv.Txn(ctx).If(never).Else(clientv3.OpTxn([]clientv3.Cmp{never}, nil, []clientv3.Op{put})).Commit()
			return err
		},
	}
	kvs := map[string]*etcd.GuardedKV{}
	for name := range writes {
		kvs[name] = g.kv(first)
	}
	second := claimBy(t, g.store, 2).Token
	for name, write := range writes {
		kv := kvs[name]
		require.NoError(t, kv.Refused(), name)
		refusedAs(t, write(kv), first, second)
		refusedAs(t, kv.Refused(), first, second)
		require.Equal(t, map[string]string{"a": "first"}, g.values(), name)
		resp, err := kv.Get(ctx, g.rows+"a")
		require.NoError(t, err)
		require.Len(t, resp.Kvs, 1, "reads pass")
		require.NoError(t, write(kv.Unguarded()), "the way past it")
		_, err = g.client.Put(ctx, g.rows+"a", "first")
		require.NoError(t, err)
	}
	_, err = etcd.GuardKV(ctx, g.client, g.prefix, first)
	refusedAs(t, err, first, second)
	_, err = etcd.Guard(ctx, g.client, g.prefix, first)
	refusedAs(t, err, first, second)
}

// A Txn has a limit for each of its parts, of which a guard takes the first.
func TestAGuardTakesAConditionAndAnElseOfATxn(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	ctx, kv := within(t, time.Minute), g.kv(claimBy(t, g.store, 1).Token)
	whens := func(n int) (all []clientv3.Cmp) {
		for i := range n {
			all = append(all, clientv3.Compare(clientv3.Version(fmt.Sprint(g.rows, i)), "=", 0))
		}
		return all
	}
	ops := func(n int, op func(string) clientv3.Op) (all []clientv3.Op) {
		for i := range n {
			all = append(all, op(fmt.Sprint(g.rows, i)))
		}
		return all
	}
	put := func(key string) clientv3.Op { return clientv3.OpPut(key, "v") }
	get := func(key string) clientv3.Op { return clientv3.OpGet(key) }
	for _, test := range []struct {
		when      int
		then      int
		otherwise []clientv3.Op
		fits      bool
	}{
		{127, 128, ops(127, get), true},
		{128, 1, nil, false},
		{0, 129, nil, false},
		{1, 1, ops(128, get), false},
		{127, 127, ops(127, put), true},
		{1, 128, ops(1, put), false},
		{1, 1, ops(128, put), false},
		{128, 1, ops(1, put), false},
	} {
		_, err := kv.Delete(ctx, g.rows, clientv3.WithPrefix())
		require.NoError(t, err)
		resp, err := kv.Txn(ctx).If(whens(test.when)...).Then(ops(test.then, put)...).Else(test.otherwise...).Commit()
		if test.fits {
			require.NoError(t, err)
			require.True(t, resp.Succeeded)
			require.Len(t, g.values(), test.then)
		} else {
			require.ErrorIs(t, err, rpctypes.ErrTooManyOps)
			require.Empty(t, g.values())
		}
	}
}

func TestAGuardedTxnIsMadeInTheClientsOrder(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	kv := g.kv(claimBy(t, g.store, 1).Token)
	for name, wrong := range map[string]func(clientv3.Txn){
		"if twice":        func(txn clientv3.Txn) { txn.If().If() },
		"if after then":   func(txn clientv3.Txn) { txn.Then().If() },
		"if after else":   func(txn clientv3.Txn) { txn.Else().If() },
		"then twice":      func(txn clientv3.Txn) { txn.Then().Then() },
		"then after else": func(txn clientv3.Txn) { txn.Else().Then() },
		"else twice":      func(txn clientv3.Txn) { txn.Else().Else() },
	} {
		require.Panics(t, func() { wrong(g.client.Txn(t.Context())) }, name)
		require.Panics(t, func() { wrong(kv.Txn(t.Context())) }, name)
	}
}

// A method that a later version of the client adds must be decided upon: is it a
// write?
func TestEveryMethodOfAKVIsGuardedReadsOrIsRefused(t *testing.T) {
	t.Parallel()
	var methods []string
	for _, m := range reflect.VisibleFields(reflect.TypeFor[etcd.GuardedKV]()) {
		require.False(t, m.Anonymous && m.Type == reflect.TypeFor[clientv3.KV](), "an embedded KV lets new methods pass")
	}
	for i := range reflect.TypeFor[clientv3.KV]().NumMethod() {
		methods = append(methods, reflect.TypeFor[clientv3.KV]().Method(i).Name)
	}
	require.Equal(t, []string{"Compact", "Delete", "Do", "Get", "GetStream", "Put", "Txn"}, methods)

	g := newGuardedRows(t)
	kv := g.kv(claimBy(t, g.store, 1).Token)
	_, err := kv.Compact(within(t, time.Minute), 1)
	require.ErrorIs(t, err, etcd.ErrUnguardable)
	require.ErrorContains(t, err, "Unguarded")
	_, err = kv.Put(within(t, time.Minute), g.rows+"a", "v")
	require.NoError(t, err)
	stream, err := kv.GetStream(within(t, time.Minute), g.rows+"a")
	require.NoError(t, err)
	resp, err := clientv3.GetStreamToGetResponse(stream)
	if rpctypes.ErrorDesc(err) == "" || err == nil { // an older server has no such call
		require.NoError(t, err)
		require.Len(t, resp.Kvs, 1)
	}
}

func TestTheLocksOfAClientWhoseKVIsGuardedAreGuarded(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	token := claimBy(t, g.store, 1).Token
	client := testetcd.Client(t, "etcd://"+strings.TrimPrefix(g.client.Endpoints()[0], "http://"))
	own := client.KV
	kv, err := etcd.GuardKV(within(t, time.Minute), client, g.prefix, token)
	require.NoError(t, err)
	require.Equal(t, own, kv.Unguarded(), "of a client its KV, which is about to be replaced")
	client.KV = kv
	client.Lease = kv.Lease(client.Lease, nil)

	session, err := concurrency.NewSession(client, concurrency.WithTTL(60), concurrency.WithContext(within(t, time.Minute)))
	require.NoError(t, err)
	mutex := concurrency.NewMutex(session, g.rows+"lock")
	require.NoError(t, mutex.Lock(within(t, time.Minute)))
	require.NoError(t, mutex.Unlock(within(t, time.Minute)))
	election := concurrency.NewElection(session, g.rows+"election")
	require.NoError(t, election.Campaign(within(t, time.Minute), "me"))
	require.Len(t, g.values(), 1)
	second := claimBy(t, g.store, 2).Token
	refusedAs(t, election.Proclaim(within(t, time.Minute), "stale"), token, second)
	refusedAs(t, mutex.Lock(within(t, time.Minute)), token, second)
	refusedAs(t, session.Close(), token, second)
	require.Len(t, g.values(), 1, "no lease was revoked")

	_, err = etcd.GuardKV(within(t, time.Minute), client, g.prefix, second)
	require.ErrorContains(t, err, "Unguarded", "two guards of one catalog, of which the older one refuses for ever")
	_, err = etcd.GuardKV(within(t, time.Minute), kv.Unguarded(), g.prefix, second)
	require.NoError(t, err)
	_, err = etcd.Open(t.Context(), "etcd:///"+g.prefix, etcd.Config{Client: client})
	require.ErrorContains(t, err, "guarded by a token")
}

func TestOneWriteCanBeGuardedByTheTokensOfTwoCatalogs(t *testing.T) {
	t.Parallel()
	one, two := newGuardedRows(t), newGuardedRows(t)
	inner := one.kv(claimBy(t, one.store, 1).Token)
	both, err := etcd.GuardKV(within(t, time.Minute), inner, two.prefix, claimBy(t, two.store, 5).Token)
	require.NoError(t, err)
	never := clientv3.Compare(clientv3.Version(one.rows+"none"), ">", 0)
	put := func(value string) error {
		_, err := both.Put(within(t, time.Minute), one.rows+"a", value)
		if err != nil {
			return err
		}
		resp, err := both.Txn(within(t, time.Minute)).If(never).Else(clientv3.OpPut(one.rows+"a", value+value)).Commit()
		require.False(t, err == nil && resp.Succeeded)
		return err
	}
	require.NoError(t, put("x"))
	require.Equal(t, map[string]string{"a": "xx"}, one.values())
	claimBy(t, one.store, 2)
	refusedAs(t, put("y"), tokenOf(1, 1), tokenOf(2, 2))
	require.NoError(t, both.Refused(), "it is the other guard that was refused")
	require.Equal(t, map[string]string{"a": "xx"}, one.values())
}

func TestANamespaceGoesAroundTheGuardOrAroundItsCatalogToo(t *testing.T) {
	t.Parallel()
	g := newGuardedRows(t)
	ctx, token := within(t, time.Minute), claimBy(t, g.store, 1).Token
	_, err := etcd.GuardKV(ctx, namespace.NewKV(g.client.KV, g.rows), g.prefix, token)
	notAToken(t, err, fence.ErrNeverIssued)
	require.ErrorContains(t, err, "namespace")

	around := g.kv(token)
	base := strings.TrimSuffix(g.prefix, "catalog")
	within2, err := etcd.GuardKV(ctx, namespace.NewKV(g.client.KV, base), "catalog", token)
	require.NoError(t, err)
	kvs := map[string]clientv3.KV{g.rows: namespace.NewKV(around, g.rows), base: within2}
	never := clientv3.Compare(clientv3.Version("none"), ">", 0)
	for prefix, kv := range kvs {
		_, err := kv.Put(ctx, "a", "v")
		require.NoError(t, err)
		resp, err := kv.Txn(ctx).If(never).Else(clientv3.OpGet("a"), clientv3.OpPut("b", "w", clientv3.WithPrevKV())).Commit()
		require.NoError(t, err)
		require.False(t, resp.Succeeded)
		require.Equal(t, "a", string(resp.Responses[0].GetResponseRange().Kvs[0].Key))
		all, err := g.client.Get(ctx, prefix+"b")
		require.NoError(t, err)
		require.Len(t, all.Kvs, 1)
	}
	second := claimBy(t, g.store, 2).Token
	for _, kv := range kvs {
		_, err := kv.Put(ctx, "a", "stale")
		refusedAs(t, err, token, second)
		_, err = kv.Txn(ctx).If(never).Else(clientv3.OpPut("b", "stale")).Commit()
		refusedAs(t, err, token, second)
	}
}
