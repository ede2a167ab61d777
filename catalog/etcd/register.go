package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

var _ fence.Register = (*Register)(nil)

var errCatalog = errors.New("there is a catalog beneath the prefix")

// A Register is the token of a service whose keys are in this cluster and whose catalog
// is elsewhere, such as in PostgreSQL or in another cluster. A new holder raises it
// before its work begins (leader.Config.Registers). [Guard] and [GuardKV] guard writes
// by it as by a catalog: their prefix is the register's.
//
// It is the one key PREFIX/token, which holds the text of a claim as a catalog's does.
// Every raise writes another text, so that etcd orders each guarded write before or
// behind it. It has no history: every lower token is stale. The user needs the right to
// read and write that key.
type Register struct {
	cluster *cluster
	keys    keys
	name    string
	once    sync.Once
	closed  error
}

// OpenRegister returns the register beneath the prefix of url, which is as [Open] has
// it. No catalog may be beneath that prefix. It asks the server nothing.
func OpenRegister(ctx context.Context, url string, cfg Config) (*Register, error) {
	to, cfg, err := parse(url, cfg, true)
	if err != nil {
		return nil, configError(err)
	}
	return &Register{cluster: newCluster(ctx, to, cfg), keys: keys{to.prefix}, name: to.String() + " (register)"}, nil
}

// String names the register, without user and password.
func (r *Register) String() string { return r.name }

// Close closes the client unless it was handed in.
func (r *Register) Close() error {
	r.once.Do(func() { r.closed = r.fail("close", r.cluster.close(), read) })
	return r.closed
}

// State returns what the register holds.
func (r *Register) State(ctx context.Context) (driver.RegisterState, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	resp, err := r.cluster.Get(ctx, r.keys.token())
	if err != nil {
		return driver.RegisterState{}, r.fail("read", err, read)
	}
	claim, err := r.claim(first(resp))
	return driver.RegisterState{Token: claim.Token, Holder: claim.Holder}, r.fail("read", err, read)
}

// Prove implements [fence.Register] by a raise whose condition never holds: etcd looks
// for the rights to write and for room before it looks at the condition.
func (r *Register) Prove(ctx context.Context, t fence.Token) error {
	text, err := r.text(t, fence.Holder{})
	if err != nil {
		return r.fail("prove", err, read)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	never := clientv3.Compare(clientv3.Version(r.keys.token()), "<", 0)
	resp, err := r.cluster.Txn(ctx).If(never).Then(clientv3.OpPut(r.keys.token(), text)).Else(clientv3.OpGet(r.keys.token())).Commit()
	if err != nil {
		return r.fail("prove", err, read)
	}
	_, err = r.below(got(resp, 0), t)
	return r.fail("prove", err, read)
}

// Raise implements [fence.Register]. A raise whose answer was lost may land later; it
// changes nothing that a higher one has written.
func (r *Register) Raise(ctx context.Context, t fence.Token, by fence.Holder) error {
	text, err := r.text(t, by)
	if err != nil {
		return r.fail("raise", err, read)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	resp, err := r.cluster.Get(ctx, r.keys.token())
	if err != nil {
		return r.fail("raise", err, read)
	}
	for now := first(resp); ; {
		below, err := r.below(now, t)
		if err != nil || !below {
			return r.fail("raise", err, read)
		}
		as := absent(r.keys.token())
		if now != nil {
			as = clientv3.Compare(clientv3.Value(r.keys.token()), "=", string(now.Value))
		}
		resp, err := r.cluster.Txn(ctx).If(as).Then(clientv3.OpPut(r.keys.token(), text)).Else(clientv3.OpGet(r.keys.token())).Commit()
		if err != nil {
			return r.fail("raise", err, sent)
		}
		if resp.Succeeded {
			return nil
		}
		now = got(resp, 0) // another raise, or this one, of which a copy has landed
	}
}

// text returns the text of a claim that raises the register to t.
func (r *Register) text(t fence.Token, by fence.Holder) (string, error) {
	if err := (guard{keys: r.keys, token: t}).check(); err != nil {
		return "", err
	}
	if t.Generation == 0 || t.Epoch == 0 {
		return "", guard{keys: r.keys, token: t}.neverIssued("both numbers of a token are above 0")
	}
	id := driver.NewID()
	text, err := encodeClaim(driver.Claim{Token: t, ID: id, Revision: 1, Holder: by, PriorClaim: id})
	if err != nil {
		return "", fmt.Errorf("%w: %w", errMisuse, err)
	}
	return string(text), nil
}

// ofRegister reports whether a claim is a register's: no catalog's claim is its own
// predecessor.
func ofRegister(c driver.Claim) bool { return c.PriorClaim == c.ID }

// claim returns what the register holds, which is the zero Claim if it was never raised.
func (r *Register) claim(now *mvccpb.KeyValue) (driver.Claim, error) {
	if now == nil {
		return driver.Claim{}, nil
	}
	c, err := driver.UnmarshalClaim(now.Value)
	switch {
	case err != nil:
		return driver.Claim{}, corrupt("%q holds no claim: %.64q", r.keys.token(), now.Value)
	case !ofRegister(c):
		return driver.Claim{}, fmt.Errorf("%w: %s", errCatalog, r.keys.prefix)
	}
	return c, nil
}

// below reports whether the register has to rise to t. If it is above, the error is a
// *fence.Error.
func (r *Register) below(now *mvccpb.KeyValue, t fence.Token) (bool, error) {
	c, err := r.claim(now)
	if err != nil {
		return false, err
	}
	order := c.Token.Compare(t)
	if order > 0 {
		return false, guard{keys: r.keys, token: t}.stale(c)
	}
	return order < 0, nil
}

// fail classifies an error, unless it is a refusal of the token.
func (r *Register) fail(op string, err error, sent phase) error {
	if err == nil {
		return nil
	}
	if refused := Refusal(err); refused != nil {
		return fmt.Errorf("etcd: %s: %w", op, err)
	}
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		err = fmt.Errorf("%w: a register needs the right to read and write the key %q: etcdctl role grant-permission ROLE readwrite %[2]q", err, r.keys.token())
	}
	class, err := classify(err, sent)
	return &driver.Error{Class: class, Store: r.name, Op: op, Err: err}
}
