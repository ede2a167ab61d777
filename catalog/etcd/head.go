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
	head driver.Head
	raw  []byte
}

// readHead reads the head. Only where there is none, it looks for what can't be
// without one: etcd counts every key of a range, however few are asked for, and
// so takes the longer for that the longer the log is.
func (s *Store) readHead(ctx context.Context) (found, error) {
	client, err := s.dial(ctx)
	if err != nil {
		return found{}, err
	}
	resp, err := client.Get(ctx, s.keys.head())
	if err != nil {
		return found{}, err
	}
	if len(resp.Kvs) == 0 {
		return s.readAbsent(ctx, client)
	}
	return foundAt(resp.Kvs[0])
}

func foundAt(kv *mvccpb.KeyValue) (found, error) {
	head, err := decodeHead(kv)
	return found{head, kv.Value}, err
}

// readAbsent reads the head and, in the same Txn, whether anything is there that
// can't be without one.
func (s *Store) readAbsent(ctx context.Context, client *clientv3.Client) (found, error) {
	some := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly()}
	resp, err := client.Txn(ctx).Then(
		clientv3.OpGet(s.keys.head()),
		clientv3.OpGet(s.keys.token(), clientv3.WithKeysOnly()),
		clientv3.OpGet(s.keys.log(), some...),
		clientv3.OpGet(s.keys.claims(), some...),
	).Commit()
	if err != nil {
		return found{}, err
	}
	if kv := got(resp, 0); kv != nil {
		return foundAt(kv)
	}
	for i := 1; i <= 3; i++ {
		if kv := got(resp, i); kv != nil {
			return found{}, corrupt("no head beside %q", kv.Key)
		}
	}
	return found{}, nil
}

// got returns the first key that the n-th operation of a Txn read, or nil.
func got(resp *clientv3.TxnResponse, n int) *mvccpb.KeyValue {
	kvs := resp.Responses[n].GetResponseRange().GetKvs()
	if len(kvs) == 0 {
		return nil
	}
	return kvs[0]
}

func decodeHead(kv *mvccpb.KeyValue) (driver.Head, error) {
	head, err := driver.UnmarshalHead(kv.Value)
	if err != nil {
		return driver.Head{}, corrupt("%q: %w", kv.Key, err)
	}
	return head, nil
}

// encodeHead returns the one form in which a head is stored and compared. JSON
// has two for a text that is not UTF-8, one written before it was ever read
// and one after; the latter is the one.
func encodeHead(head driver.Head) ([]byte, error) {
	text, err := driver.MarshalHead(head)
	if err != nil || !bytes.Contains(text, []byte(`\ufffd`)) {
		return text, err
	}
	if head, err = driver.UnmarshalHead(text); err != nil {
		return nil, err
	}
	return driver.MarshalHead(head)
}

// encodeClaim returns the one form in which the token is stored and compared,
// as encodeHead does of a head.
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

// nextHead returns what head is stored as. It refuses one that could not be
// read again.
func nextHead(head driver.Head) ([]byte, error) {
	text, err := encodeHead(head)
	if err == nil {
		_, err = driver.UnmarshalHead(text)
	}
	return text, err
}
