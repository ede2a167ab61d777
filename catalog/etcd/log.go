package etcd

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/catalog/driver"
)

// Log implements [driver.Store].
func (s *Store) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return s.readLog(ctx, after, everything, fn)
}

// Claims implements [driver.Store].
func (s *Store) Claims(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	each := func(_ int64, revision uint64, kv *mvccpb.KeyValue) error {
		claim, err := driver.UnmarshalClaim(kv.Value)
		if err != nil {
			return corrupt("%q: %w", kv.Key, err)
		}
		if claim.Revision != revision {
			return corrupt("%q: a claim of revision %d", kv.Key, claim.Revision)
		}
		return caller(fn(claim))
	}
	last := func(head driver.Head) uint64 { return head.Claim.Revision }
	return s.tell("claims", s.scan(ctx, &scan{dir: s.keys.claims(), after: after, upTo: everything, last: last, each: each}))
}

func (s *Store) readLog(ctx context.Context, after, upTo uint64, fn func(driver.Record) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sc := &scan{dir: s.keys.log(), after: after, upTo: upTo}
	sc.last = func(head driver.Head) uint64 { return min(head.Revision, upTo) }
	sc.each = func(at int64, revision uint64, kv *mvccpb.KeyValue) error {
		if want := sc.after + 1; revision != want {
			return sc.missing(want, revision)
		}
		rec, chunked, err := unmarshalRecord(revision, kv.Value)
		if err != nil {
			return corrupt("%q: %w", kv.Key, err)
		}
		if chunked > 0 {
			if rec.Payload, err = s.readChunks(ctx, at, rec, chunked); err != nil {
				return err
			}
		}
		return caller(fn(rec))
	}
	return s.tell("log", s.scan(ctx, sc))
}

// missing says why a record is not there: what a snapshot stands for may be
// deleted.
func (sc *scan) missing(want, next uint64) error {
	if want < sc.snapshot.Revision {
		return fmt.Errorf("%w: record %d, of which a snapshot of revision %d stands", driver.ErrCompacted, want, sc.snapshot.Revision)
	}
	return corrupt("record %d is missing, the next one is %d", want, next)
}

// A callerError is what the caller's function returned: it goes back as it is.
type callerError struct{ err error }

func (e *callerError) Error() string { return e.err.Error() }

func caller(err error) error {
	if err == nil {
		return nil
	}
	return &callerError{err}
}

// tell returns the caller's own error as it is, and others with their class.
func (s *Store) tell(op string, err error) error {
	var own *callerError
	if errors.As(err, &own) {
		return own.err
	}
	return s.fail(op, err, read)
}

// A page holds as many records as fit in a few mebibytes, going by the page
// before.
const (
	everything = ^uint64(0)
	firstPage  = 64
	largePage  = 512
	pageBytes  = 4 << 20
	maxAnswer  = 2 * pageBytes // what the client receives at once: a page that turns out larger is asked for again, smaller
)

// A scan goes through the numbered keys of a directory, page by page, at one
// revision of the store.
type scan struct {
	dir   string
	after uint64 // the last number delivered
	upTo  uint64
	last  func(driver.Head) uint64                                 // the number that must not be missing
	each  func(at int64, number uint64, kv *mvccpb.KeyValue) error // at is the revision of the store
	limit int64

	snapshot driver.Snapshot // as of what is being read
}

// scan begins again after the last number delivered where etcd has compacted
// the revision that was being read.
func (s *Store) scan(ctx context.Context, sc *scan) error {
	client, err := s.dial(ctx)
	if err != nil {
		return err
	}
	sc.limit = firstPage
	for sc.after < sc.upTo {
		err := sc.run(ctx, client, s)
		switch {
		case status.Code(err) == codes.ResourceExhausted && sc.limit > 1:
			sc.limit = max(sc.limit/8, 1) // the answer was above maxAnswer
		case !errors.Is(err, rpctypes.ErrCompacted):
			return err
		}
	}
	return nil
}

// run reads the first page together with head and snapshot, and the others at
// the same revision. Head and log move in one Txn, so whatever is behind the head is
// missing.
func (sc *scan) run(ctx context.Context, client *cluster, s *Store) error {
	resp, err := client.Txn(ctx).Then(s.keys.readHead(), clientv3.OpGet(s.keys.snapshot()), sc.page()).Paged().Commit()
	if err != nil {
		return err
	}
	found, err := s.decode(all(resp, 0))
	if err != nil {
		return err
	}
	head := found.head
	if sc.snapshot, err = decodeSnapshot(got(resp, 1)); err != nil {
		return err
	}
	page := (*clientv3.GetResponse)(resp.Responses[2].GetResponseRange())
	for {
		if err := sc.deliver(resp.Header.Revision, page, head); err != nil {
			return err
		}
		if !page.More {
			break
		}
		if page, err = sc.next(ctx, client, resp.Header.Revision); err != nil {
			return err
		}
	}
	if last := sc.last(head); sc.after < last {
		return corrupt("the head is at revision %d, %s ends at %d", last, sc.dir, sc.after)
	}
	return nil
}

func (sc *scan) next(ctx context.Context, client *cluster, revision int64) (*clientv3.GetResponse, error) {
	return client.Page(ctx, sc.page(clientv3.WithRev(revision)))
}

func (sc *scan) page(opts ...clientv3.OpOption) clientv3.Op {
	end := clientv3.GetPrefixRangeEnd(sc.dir)
	if sc.upTo != everything {
		end = numbered(sc.dir, sc.upTo+1)
	}
	opts = append(opts, clientv3.WithRange(end), clientv3.WithLimit(sc.limit))
	return clientv3.OpGet(numbered(sc.dir, sc.after+1), opts...)
}

func (sc *scan) deliver(at int64, page *clientv3.GetResponse, head driver.Head) error {
	size := 0
	for _, kv := range page.Kvs {
		n, err := number(sc.dir, kv.Key)
		if err != nil {
			return err
		}
		if head.IsZero() {
			return corrupt("no head beside %q", kv.Key)
		}
		if err := sc.each(at, n, kv); err != nil {
			return err
		}
		sc.after = n
		size += len(kv.Value)
	}
	switch {
	case size > pageBytes:
		sc.limit = max(sc.limit/4, 1)
	case size < pageBytes/4:
		sc.limit = min(sc.limit*2, largePage)
	}
	return nil
}
