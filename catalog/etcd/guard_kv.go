package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// ErrUnguardable means that etcd takes no condition with a request, so that no
// guard can refuse it.
var ErrUnguardable = errors.New("etcd takes no condition with this request")

// A GuardedKV is a [clientv3.KV] whose writes the server refuses once another
// token was claimed. Its methods may be called concurrently.
//
//   - Put, Delete, Txn and Do with any of them are one Txn each, which compares the
//     catalog's token. What nested Txns write is under the same condition, and so
//     is a Put with a lease.
//   - A Txn that only reads is guarded too. Get and GetStream are not.
//   - Compact takes no condition: it fails with [ErrUnguardable].
//
// A refused request has written nothing. Its error holds a *[fence.Error] or a
// *[fence.TokenError] (see [Refusal]), by what the same Txn has read, so a refusal
// costs no further round trip. A Txn whose own conditions were not fulfilled
// returns no error, and the answers of its Else, as without a guard. After a
// *fence.Error no write is sent any more: each returns the same error.
//
// An error of the client comes as it is. A write whose answer was lost may have
// been applied while the token was the newest; sent again, it is refused once it
// isn't.
//
// The guard takes one of the conditions and one of the Else operations that etcd
// allows for a Txn (128 by default); a Txn whose Else writes is nested, and has 127
// of each. It adds the text of the claim to the request, about 400 bytes.
//
// In a cluster that was restored from a backup, a token that was claimed behind the
// backup was never issued. The token that was the newest in the backup is the newest
// again, and its writes are accepted; the catalog tells its holder what was lost.
//
// To guard all that a client does, such as the locks and STM of package
// concurrency, set the client's field:
//
//	guarded, err := etcd.GuardKV(ctx, client, "orders", token)
//	…
//	client.KV = guarded
//	client.Lease = guarded.Lease(client.Lease, leading.Err)
//
// Don't hand that client to a [Config]: a catalog's own requests are not guarded.
//
// If the client has a namespace that the catalog is not in, put the namespace
// around the guard: namespace.NewKV(guarded, "app/").
type GuardedKV struct {
	guard
	kv      clientv3.KV
	refused atomic.Pointer[fence.Error] // the first one; nil before
}

var _ clientv3.KV = (*GuardedKV)(nil)

// GuardKV guards the writes of kv, which may be a client, by the token of the
// catalog beneath prefix. It reads the token once, and returns the errors of
// [Guard].
func GuardKV(ctx context.Context, kv clientv3.KV, prefix string, token fence.Token) (*GuardedKV, error) {
	if client, ok := kv.(*clientv3.Client); ok {
		kv = client.KV // which the caller may be about to replace
	}
	g, err := newGuard(ctx, kv, prefix, token)
	if err != nil {
		return nil, err
	}
	if before, ok := kv.(*GuardedKV); ok && before.keys == g.keys {
		class := driver.Class{Disposition: exitcodes.Panic, Remedy: "guard what its Unguarded returns"}
		return nil, &driver.Error{Class: class, Store: g.String(), Op: "guard", Err: fmt.Errorf("%w: the client is guarded by %v already", errMisuse, before.token)}
	}
	return &GuardedKV{guard: g, kv: kv}, nil
}

// Unguarded returns what the guard was put around: the way past it, for writes that
// a holder which lost its token may do, too.
func (k *GuardedKV) Unguarded() clientv3.KV { return k.kv }

// Token returns the token that guards.
func (k *GuardedKV) Token() fence.Token { return k.token }

// Refused returns the *[fence.Error] of the first write that was refused because a
// newer token was claimed, or nil. It asks nobody: nil proves nothing.
func (k *GuardedKV) Refused() error {
	if stale := k.refused.Load(); stale != nil {
		return stale
	}
	return nil
}

// Put implements [clientv3.KV].
func (k *GuardedKV) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	resp, err := k.Do(ctx, clientv3.OpPut(key, val, opts...))
	return resp.Put(), err
}

// Delete implements [clientv3.KV].
func (k *GuardedKV) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	resp, err := k.Do(ctx, clientv3.OpDelete(key, opts...))
	return resp.Del(), err
}

// Get implements [clientv3.KV]. It is not guarded.
func (k *GuardedKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return k.kv.Get(ctx, key, opts...)
}

// GetStream implements [clientv3.KV]. It is not guarded.
func (k *GuardedKV) GetStream(ctx context.Context, key string, opts ...clientv3.OpOption) (clientv3.GetStreamChan, error) {
	return k.kv.GetStream(ctx, key, opts...)
}

// Compact implements [clientv3.KV]. It returns [ErrUnguardable]: what it removes is
// gone for every user of the cluster, and etcd takes no condition with it.
func (k *GuardedKV) Compact(context.Context, int64, ...clientv3.CompactOption) (*clientv3.CompactResponse, error) {
	return nil, fmt.Errorf("etcd: compact: %w: if a holder that lost its token may do it, call it on Unguarded", ErrUnguardable)
}

// Do implements [clientv3.KV].
func (k *GuardedKV) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	switch {
	case op.IsGet():
		return k.kv.Do(ctx, op)
	case op.IsTxn():
		when, then, otherwise := op.Txn()
		resp, err := k.commit(ctx, when, then, otherwise)
		return resp.OpResponse(), err
	}
	resp, err := k.send(ctx, nil, []clientv3.Op{op}, nil)
	if err != nil {
		return clientv3.OpResponse{}, err
	}
	if del := resp.Responses[0].GetResponseDeleteRange(); del != nil {
		del.Header = resp.Header
		return (*clientv3.DeleteResponse)(del).OpResponse(), nil
	}
	put := resp.Responses[0].GetResponsePut()
	put.Header = resp.Header
	return (*clientv3.PutResponse)(put).OpResponse(), nil
}

// Txn implements [clientv3.KV].
func (k *GuardedKV) Txn(ctx context.Context) clientv3.Txn { return &guardedTxn{kv: k, ctx: ctx} }

// commit sends a caller's Txn. The Else of the guard's Txn runs when the guard
// refuses, too, so that a caller's Else that writes must not be part of it.
func (k *GuardedKV) commit(ctx context.Context, when []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	if !slices.ContainsFunc(otherwise, func(op clientv3.Op) bool { return !op.IsGet() }) {
		return k.send(ctx, when, then, otherwise)
	}
	resp, err := k.send(ctx, nil, []clientv3.Op{clientv3.OpTxn(when, then, otherwise)}, nil)
	if err != nil {
		return nil, err
	}
	own := resp.Responses[0].GetResponseTxn()
	own.Header = resp.Header
	return (*clientv3.TxnResponse)(own), nil
}

// send sends a Txn on condition that the token is the newest. Otherwise must only
// read. It reads the token in the Else of the same Txn, which tells a refusal by
// the guard from one by the caller's own conditions.
func (k *GuardedKV) send(ctx context.Context, when []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	if err := k.Refused(); err != nil {
		return nil, err
	}
	when = append([]clientv3.Cmp{k.live}, when...)
	otherwise = append([]clientv3.Op{k.look}, otherwise...)
	txn, err := k.kv.Txn(ctx).If(when...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return nil, k.explain(err)
	}
	if txn.Succeeded {
		return txn, nil
	}
	if now := got(txn, 0); now == nil || string(now.Value) != k.claim {
		return nil, k.refuse(now)
	}
	txn.Responses = txn.Responses[1:]
	return txn, nil
}

// refuse returns why a write was refused, and remembers that the token is stale: it
// stays so.
func (k *GuardedKV) refuse(now *mvccpb.KeyValue) error {
	err := k.refusal(now)
	var stale *fence.Error
	if errors.As(err, &stale) {
		k.refused.CompareAndSwap(nil, stale)
	}
	return err
}

// A guardedTxn is a Txn that is being made.
type guardedTxn struct {
	kv              *GuardedKV
	ctx             context.Context
	made            part
	when            []clientv3.Cmp
	then, otherwise []clientv3.Op
}

// A part of a Txn, in the order in which they are made.
type part int

const (
	partIf part = iota + 1
	partThen
	partElse
)

func (t *guardedTxn) begin(p part) {
	if t.made >= p {
		panic("etcd: a Txn takes If, Then and Else once each, in this order")
	}
	t.made = p
}

// If implements [clientv3.Txn].
func (t *guardedTxn) If(when ...clientv3.Cmp) clientv3.Txn {
	t.begin(partIf)
	t.when = slices.Clone(when)
	return t
}

// Then implements [clientv3.Txn].
func (t *guardedTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.begin(partThen)
	t.then = slices.Clone(ops)
	return t
}

// Else implements [clientv3.Txn].
func (t *guardedTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.begin(partElse)
	t.otherwise = slices.Clone(ops)
	return t
}

// Commit implements [clientv3.Txn].
func (t *guardedTxn) Commit() (*clientv3.TxnResponse, error) {
	return t.kv.commit(t.ctx, t.when, t.then, t.otherwise)
}
