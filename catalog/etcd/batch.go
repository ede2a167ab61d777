package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

// A batch is a commit whose payload is too large for one request. It is staged
// before: first a manifest, on the commit's own conditions, then the payload in
// chunks. The commit's Txn takes the manifest away, moves the head and adds a
// record that says how much lies in chunks: from then on they belong to the
// log, and before that no reader sees them.
//
// Chunks that belong to no record have a manifest: each is put on condition
// that it is there, the commit lands on that condition, and whoever deletes the
// chunks deletes it in the same Txn, on that condition. So what is published is
// whole; what is on its way to a batch that was cleared away is refused; and
// nobody who comes late to clear away finds a manifest beside the chunks of a
// record.
//
// A manifest whose revision the head has reached is an orphan, as its commit
// needs a lower one: Store.Trim clears it away. One above the head may yet be
// published, and is left alone whoever staged it.
type batch struct {
	keys  keys
	claim driver.Claim // under which it is committed
	rec   driver.Record
	made  int64 // create revision of the manifest
}

func isChunked(rec driver.Record) bool { return len(rec.Payload) > chunkBytes }

// newBatch returns the batch that rec needs, or nil where it needs none.
func (s *Store) newBatch(under driver.Claim, rec driver.Record) *batch {
	if !isChunked(rec) {
		return nil
	}
	return &batch{keys: s.keys, claim: under, rec: rec}
}

// A manifest is for people: what counts is that it is there.
type manifest struct {
	Claim  driver.ID `json:"claim"`
	Chunks int       `json:"chunks"`
	Bytes  int       `json:"bytes"`
	Since  time.Time `json:"since"`
}

func (b *batch) manifest() string   { return b.keys.manifest(b.rec.Revision, b.rec.ID) }
func (b *batch) chunk(n int) string { return b.keys.chunk(b.rec.Revision, b.rec.ID, n) }
func (b *batch) count() int         { return (len(b.rec.Payload) + chunkBytes - 1) / chunkBytes }

// stands compares the manifest with the one under which the chunks were put.
func (b *batch) stands() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(b.manifest()), "=", b.made)
}

// seal is what publishes the chunks.
func (b *batch) seal() clientv3.Op { return clientv3.OpDelete(b.manifest()) }

// A judge says, by head and claim-wanted key, whether the commit that is being
// staged is known to be refused.
type judge func(*clientv3.TxnResponse) error

// stage puts the manifest on condition of when, and all chunks that are not
// there from an earlier try of the same commit. It puts one after the other: a
// server that syncs each is no quicker with several at once.
func (b *batch) stage(ctx context.Context, client *cluster, refused judge, when ...clientv3.Cmp) error {
	there, err := b.begin(ctx, client, refused, when)
	if err != nil {
		return err
	}
	for n := range b.count() {
		if there[b.chunk(n)] {
			continue
		}
		if err := b.put(ctx, client, refused, n); err != nil {
			return err
		}
	}
	step.Reach(ctx, step.BatchStaged)
	return nil
}

// begin puts the manifest, or finds it with the chunks that are there.
func (b *batch) begin(ctx context.Context, client *cluster, refused judge, when []clientv3.Cmp) (there map[string]bool, err error) {
	text, err := json.Marshal(manifest{Claim: b.claim.ID, Chunks: b.count(), Bytes: len(b.rec.Payload), Since: time.Now().UTC()})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMisuse, err)
	}
	resp, err := client.Txn(ctx).If(append(when[:len(when):len(when)], absent(b.manifest()))...).
		Then(clientv3.OpPut(b.manifest(), string(text))).
		Else(append(b.keys.look(),
			clientv3.OpGet(b.manifest(), clientv3.WithKeysOnly()),
			clientv3.OpGet(b.keys.chunks(b.rec.Revision, b.rec.ID), clientv3.WithPrefix(), clientv3.WithKeysOnly()))...).
		Commit()
	if err != nil {
		return nil, err
	}
	if resp.Succeeded {
		b.made = resp.Header.Revision
		return nil, nil
	}
	kv := got(resp, 2)
	if kv == nil {
		if err := refused(resp); err != nil {
			return nil, err
		}
		return nil, corrupt("the manifest %q is neither there nor to be put", b.manifest())
	}
	b.made, there = kv.CreateRevision, make(map[string]bool)
	for _, chunk := range resp.Responses[3].GetResponseRange().GetKvs() {
		there[string(chunk.Key)] = true
	}
	return there, nil
}

// put puts the n-th chunk. Whoever has lost the token hears it at the next one.
func (b *batch) put(ctx context.Context, client *cluster, refused judge, n int) error {
	part := b.rec.Payload[n*chunkBytes : min((n+1)*chunkBytes, len(b.rec.Payload))]
	resp, err := client.Txn(ctx).If(b.stands()).
		Then(append(b.keys.look(), clientv3.OpPut(b.chunk(n), string(part)))...).
		Else(b.keys.look()...).Commit()
	if err != nil {
		return err
	}
	if err := refused(resp); err != nil {
		return err
	}
	if !resp.Succeeded {
		return corrupt("the manifest %q was removed", b.manifest())
	}
	return nil
}

// discard clears away a batch that nobody will publish any more, unless it was
// published. After a failure it is left to Trim.
func (s *Store) discard(ctx context.Context, client *cluster, b *batch) {
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	_, err := client.Txn(ctx).If(present(b.manifest())).Then(s.keys.removeBatch(b.rec.Revision, b.rec.ID)...).Commit()
	if err != nil {
		s.log.Info("a large commit that failed leaves its chunks to Trim", "store", s.name, "revision", b.rec.Revision, "error", err)
	}
}

// removeBatch deletes a manifest with its chunks. The Txn must compare the
// manifest.
func (k keys) removeBatch(revision uint64, id driver.ID) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpDelete(k.manifest(revision, id)),
		clientv3.OpDelete(k.chunks(revision, id), clientv3.WithPrefix()),
	}
}

// readChunks puts the payload of rec together, as of one revision of the store.
func (s *Store) readChunks(ctx context.Context, at int64, rec driver.Record, size uint64) ([]byte, error) {
	client, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	payload, n := make([]byte, 0, min(size, maxPayload)), 0
	add := func(kv *mvccpb.KeyValue) error {
		if want := s.keys.chunk(rec.Revision, rec.ID, n); string(kv.Key) != want {
			return corrupt("record %d: found %q, want %q", rec.Revision, kv.Key, want)
		}
		n++
		payload = append(payload, kv.Value...)
		return nil
	}
	dir := s.keys.chunks(rec.Revision, rec.ID)
	if err := pages(ctx, client, dir, clientv3.GetPrefixRangeEnd(dir), at, add); err != nil {
		return nil, err
	}
	if uint64(len(payload)) != size {
		return nil, corrupt("record %d: %d chunks with %d bytes of %d", rec.Revision, n, len(payload), size)
	}
	return payload, nil
}

// piecePage is how many chunks, or parts of a snapshot, one answer brings: as
// much as a page of records.
const piecePage = pageBytes / chunkBytes

// pages calls each with the keys from the one key to the other, as of one
// revision of the store. A client that receives no more than one at a time gets
// them so.
func pages(ctx context.Context, client *cluster, from, to string, at int64, each func(*mvccpb.KeyValue) error) error {
	limit := int64(piecePage)
	for {
		resp, err := client.Page(ctx, clientv3.OpGet(from, clientv3.WithRange(to), clientv3.WithRev(at), clientv3.WithLimit(limit)))
		if status.Code(err) == codes.ResourceExhausted && limit > 1 {
			limit = 1
			continue
		}
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if err := each(kv); err != nil {
				return err
			}
			from = string(kv.Key) + "\x00"
		}
		if !resp.More {
			return nil
		}
	}
}
