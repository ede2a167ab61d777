package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// A guard compares the key "token" with the text of the claim that installed the
// token. Every claim of every build writes that key, in the Txn that installs its
// token, and nothing else does, so etcd orders each guarded write before or behind
// each claim, and refuses the one behind. Commits don't move the key.
//
// The guard compares the text, and not
//
//   - the key's mod revision: the revisions of a cluster that is restored from a
//     backup are issued again, and another claim may get the same one;
//   - the token alone: after a restore, another claim may get the same token. The
//     text has the claim's id, which no other claim has;
//   - the key's version as an epoch: a token that is raised skips epochs.
type guard struct {
	keys  keys
	token fence.Token
	claim string // text of the claim that installed token

	live clientv3.Cmp // that token is the newest
	look clientv3.Op  // reads which one is
}

// Guard returns the condition on which a Txn is refused once another token than
// token was claimed:
//
//	live, err := etcd.Guard(ctx, client, "orders", token)
//	…
//	resp, err := client.Txn(ctx).If(live, …).Then(…).Commit()
//
// Prefix is the catalog's, as in etcd://host:2379/orders. The condition is on the
// catalog's key "token", so the catalog must be in the same cluster, and the user
// of the client must have the right to read that key. Guard reads it once; the
// condition can be used in any number of Txns.
//
// Guard returns a *[fence.Error] if a newer token was claimed, and a
// *[fence.TokenError] if token is zero or was never issued. The condition that it
// returns with an error is one that the server refuses, so a caller that
// overlooks the error writes nothing. After a further claim, also of the same
// process, there is a new token, which needs a condition of its own.
//
// If a Txn did not succeed, either the token is stale or a condition of the Txn's
// own was not fulfilled: call Guard again, which returns the refusal, or nil.
// [GuardKV] tells them apart without a further round trip.
func Guard(ctx context.Context, kv clientv3.KV, prefix string, token fence.Token) (clientv3.Cmp, error) {
	g, err := newGuard(ctx, kv, prefix, token)
	if err != nil {
		return clientv3.Cmp{}, err
	}
	return g.live.Clone(), nil
}

// newGuard reads the claim that installed token.
func newGuard(ctx context.Context, kv clientv3.KV, prefix string, token fence.Token) (guard, error) {
	g := guard{keys: keys{strings.TrimSuffix(prefix, "/")}, token: token}
	if err := g.check(); err != nil {
		return guard{}, err
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	resp, err := kv.Get(ctx, g.keys.token())
	if err != nil {
		return guard{}, g.fail(g.explain(err))
	}
	now := first(resp)
	claim, err := g.newest(now)
	if err != nil {
		return guard{}, err
	}
	if claim.Token != token {
		return guard{}, g.lookUp(ctx, kv, claim)
	}
	g.claim = string(now.Value)
	g.live = clientv3.Compare(clientv3.Value(g.keys.token()), "=", g.claim)
	g.look = clientv3.OpGet(g.keys.token())
	return g, nil
}

// first returns the first key of an answer, or nil.
func first(resp *clientv3.GetResponse) *mvccpb.KeyValue {
	if len(resp.Kvs) == 0 {
		return nil
	}
	return resp.Kvs[0]
}

// check refuses what is no token, or names no catalog.
func (g guard) check() error {
	if g.keys.prefix == "" {
		class := driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config}
		return &driver.Error{Class: class, Store: "etcd", Op: "guard", Err: errors.New("a guard needs the prefix of its catalog, such as orders in etcd://host:2379/orders")}
	}
	if g.token.IsZero() {
		return &fence.TokenError{Guard: g.String(), Err: fence.ErrMissing}
	}
	if _, err := g.token.MarshalText(); err != nil {
		return &fence.TokenError{Guard: g.String(), Token: g.token.String(), Err: fmt.Errorf("%w: %w", fence.ErrMalformed, err)}
	}
	return nil
}

// String names the guard in refusals.
func (g guard) String() string { return "etcd /" + g.keys.prefix }

// newest returns the claim that the token's key holds.
func (g guard) newest(now *mvccpb.KeyValue) (driver.Claim, error) {
	if now == nil {
		return driver.Claim{}, g.neverIssued("there is no key %.64q, as this client sees the cluster: check the prefix, and the client's namespace", g.keys.token())
	}
	claim, err := driver.UnmarshalClaim(now.Value)
	if err != nil {
		return driver.Claim{}, g.fail(corrupt("%q holds no claim: %.64q", g.keys.token(), now.Value))
	}
	return claim, nil
}

// refusal says why the condition did not hold, by the token's key as it was then.
// It needs no history: the guard has read its own claim.
func (g guard) refusal(now *mvccpb.KeyValue) error {
	claim, err := g.newest(now)
	switch {
	case err != nil:
		return err
	case g.token.Compare(claim.Token) < 0:
		return g.stale(claim)
	case g.token == claim.Token:
		return g.neverIssued("this cluster has issued it to another claim, and was restored since: the claim is %v", claim.ID)
	default:
		return g.neverIssued("this cluster was restored: its newest is %v", claim.Token)
	}
}

// lookUp says why token is refused, beside the newest claim: it is stale if it is
// lower, and in the history of claims. A register has no history.
func (g guard) lookUp(ctx context.Context, kv clientv3.KV, newest driver.Claim) error {
	if g.token.Compare(newest.Token) > 0 {
		return g.neverIssued("the newest is %v", newest.Token)
	}
	if ofRegister(newest) {
		return g.stale(newest)
	}
	issued, err := g.issued(ctx, kv)
	switch {
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("%w (it was not looked up in the history of claims, which needs the right to read what begins with %q)", g.stale(newest), g.keys.claims())
	case err != nil:
		return g.fail(err)
	case !issued:
		return g.neverIssued("the newest is %v, and no claim before it had this one", newest.Token)
	default:
		return g.stale(newest)
	}
}

// issued reports whether a claim has installed token. The history of claims is
// never compacted.
func (g guard) issued(ctx context.Context, kv clientv3.KV) (bool, error) {
	from, end := g.keys.claims(), clientv3.GetPrefixRangeEnd(g.keys.claims())
	for {
		resp, err := kv.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(largePage))
		if err != nil {
			return false, err
		}
		for _, kv := range resp.Kvs {
			claim, err := driver.UnmarshalClaim(kv.Value)
			if err != nil {
				return false, corrupt("%q holds no claim: %.64q", kv.Key, kv.Value)
			}
			if claim.Token == g.token {
				return true, nil
			}
			from = string(kv.Key) + "\x00"
		}
		if !resp.More {
			return false, nil
		}
	}
}

func (g guard) stale(newest driver.Claim) *fence.Error {
	return &fence.Error{Held: g.token, Current: newest.Token, By: newest.Holder, Guard: g.String()}
}

func (g guard) neverIssued(format string, args ...any) *fence.TokenError {
	why := fmt.Errorf("%w (%s)", fence.ErrNeverIssued, fmt.Sprintf(format, args...))
	return &fence.TokenError{Guard: g.String(), Token: g.token.String(), Err: why}
}

// fail classifies an error of a read.
func (g guard) fail(err error) error {
	class, err := classify(err, read)
	return &driver.Error{Class: class, Store: g.String(), Op: "guard", Err: err}
}

// explain says which right a guard needs, if err is that one is missing.
func (g guard) explain(err error) error {
	if !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return err
	}
	return fmt.Errorf("%w: beside the request's own rights a guard needs the right to read the key %q: etcdctl role grant-permission ROLE read %[2]q", err, g.keys.token())
}

// Refusal returns a guard's refusal that err holds, or nil if err holds none: a
// *[fence.Error] if a newer token was claimed, a *[fence.TokenError] if the token
// was missing, malformed or never issued. A *fence.Error of a guard is a hint:
// pass it to catalog.Catalog.Explain, or let leader.Leader do it.
func Refusal(err error) error {
	var stale *fence.Error
	var token *fence.TokenError
	switch {
	case errors.As(err, &stale) && stale.Guard != "":
		return stale
	case errors.As(err, &token):
		return token
	default:
		return nil
	}
}
