package etcd

import (
	"bytes"
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Head implements [driver.Store]. It shares its Txn with who asks for the heads
// of other catalogs of the same [Server] at the same time.
func (s *Store) Head(ctx context.Context) (driver.Head, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	found, err := s.heads.Ask(ctx, s)
	return found.head, s.fail("head", err, read)
}

// A found head is the head with the bytes that it was read from, which are nil
// where there is none.
type found struct {
	head       driver.Head
	claim, end []byte
}

// readHead reads the head. Only where there is none, it looks for what can't be
// without one: etcd counts every key of a range, however few are asked for, and
// so takes the longer for that the longer the log is.
func (s *Store) readHead(ctx context.Context) (found, error) {
	client, err := s.dial(ctx)
	if err != nil {
		return found{}, err
	}
	resp, err := client.Do(ctx, s.keys.readHead())
	if err != nil {
		return found{}, err
	}
	return s.foundIn(ctx, client, resp.Get().Kvs)
}

// foundIn returns the head that the answer to keys.readHead holds.
func (s *Store) foundIn(ctx context.Context, client *cluster, kvs []*mvccpb.KeyValue) (found, error) {
	if len(kvs) == 0 {
		return s.readAbsent(ctx, client)
	}
	return s.decode(kvs)
}

// readHead reads the two keys of the head, which are neighbours.
func (k keys) readHead() clientv3.Op {
	return clientv3.OpGet(k.head(), clientv3.WithRange(k.end()+"\x00"))
}

// readAbsent reads the head and, in the same Txn, whether anything is there that
// can't be without one.
func (s *Store) readAbsent(ctx context.Context, client *cluster) (found, error) {
	some := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly()}
	resp, err := client.Txn(ctx).Then(
		s.keys.readHead(),
		clientv3.OpGet(s.keys.token(), clientv3.WithKeysOnly()),
		clientv3.OpGet(s.keys.log(), some...),
		clientv3.OpGet(s.keys.claims(), some...),
	).Commit()
	if err != nil {
		return found{}, err
	}
	if kvs := all(resp, 0); len(kvs) > 0 {
		return s.decode(kvs)
	}
	for i := 1; i <= 3; i++ {
		if kv := got(resp, i); kv != nil {
			return found{}, corrupt("no head beside %q", kv.Key)
		}
	}
	return found{}, nil
}

// pieces returns what readHead has found.
func (k keys) pieces(kvs []*mvccpb.KeyValue) (claim, end []byte) {
	for _, kv := range kvs {
		switch string(kv.Key) {
		case k.head():
			claim = kv.Value
		case k.end():
			end = kv.Value
		}
	}
	return claim, end
}

// decode returns the head that the answer to keys.readHead holds, if there is one.
func (s *Store) decode(kvs []*mvccpb.KeyValue) (f found, err error) {
	f.claim, f.end = s.keys.pieces(kvs)
	switch {
	case f.claim == nil && f.end == nil:
		return found{}, nil
	case f.claim == nil || f.end == nil:
		return found{}, corrupt("of %q and %q only one is there", s.keys.head(), s.keys.end())
	}
	if f.head, err = s.claimed(f.claim); err != nil {
		return found{}, corrupt("%q: %w", s.keys.head(), err)
	}
	if f.head.Revision, f.head.Commit, err = parseEnd(f.end); err == nil {
		err = f.head.Check()
	}
	if err != nil {
		return found{}, corrupt("%q beside %q: %w", s.keys.end(), s.keys.head(), err)
	}
	return f, nil
}

// A decoded head is the one right after a claim, with its text.
type decoded struct {
	text string
	head driver.Head
}

// claimed reads the head right after the newest claim. It remembers the last
// one: it is the same for long.
func (s *Store) claimed(text []byte) (driver.Head, error) {
	if last := s.newest.Load(); last != nil && last.text == string(text) {
		return last.head, nil
	}
	head, err := driver.UnmarshalHead(text)
	if err == nil {
		s.newest.Store(&decoded{string(text), head})
	}
	return head, err
}

// got returns the first key that the n-th operation of a Txn read, or nil.
func got(resp *clientv3.TxnResponse, n int) *mvccpb.KeyValue {
	kvs := all(resp, n)
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

// all returns the keys that the n-th operation of a Txn read.
func all(resp *clientv3.TxnResponse, n int) []*mvccpb.KeyValue {
	return resp.Responses[n].GetResponseRange().GetKvs()
}

// encodeClaim returns the one form in which the token is stored and compared.
// JSON has two for a text that is not UTF-8, one written before it was ever
// read and one after; the latter is the one.
func encodeClaim(c driver.Claim) ([]byte, error) {
	text, err := driver.MarshalClaim(c)
	if err != nil || !bytes.Contains(text, []byte(`\ufffd`)) {
		return text, err
	}
	if c, err = driver.UnmarshalClaim(text); err != nil {
		return nil, err
	}
	return driver.MarshalClaim(c)
}

// claimedHead returns the text of the head right after a claim. It refuses one
// that could not be read again.
func claimedHead(claim driver.Claim) ([]byte, error) {
	text, err := driver.MarshalHead(claim.Head())
	if err == nil {
		_, err = driver.UnmarshalHead(text)
	}
	return text, err
}
