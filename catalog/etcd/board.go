package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/fencepost/fencepost/catalog/driver"
)

// notesPage bounds one answer to 4 MiB of notes.
const notesPage = 16

// Notes implements [driver.Store].
func (s *Store) Notes(ctx context.Context, prefix string) ([]driver.Note, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	client, err := s.dial(ctx)
	if err != nil {
		return nil, s.fail("notes", err, read)
	}
	for {
		notes, err := s.notes(ctx, client, s.keys.board(prefix))
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return notes, s.fail("notes", err, read)
		}
	}
}

// notes reads all pages at the revision of the first.
func (s *Store) notes(ctx context.Context, client *cluster, from string) ([]driver.Note, error) {
	var notes []driver.Note
	end, revision := clientv3.GetPrefixRangeEnd(from), int64(0)
	for {
		resp, err := client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(notesPage), clientv3.WithRev(revision))
		if err != nil {
			return nil, err
		}
		for _, kv := range resp.Kvs {
			value := append([]byte{}, kv.Value...) // never nil: nil stands for removed
			notes = append(notes, driver.Note{Key: s.keys.note(kv.Key), Value: value, Version: kv.ModRevision})
			from = string(kv.Key) + "\x00"
		}
		if !resp.More {
			return notes, nil
		}
		if revision == 0 {
			revision = resp.Header.Revision // of the first page; later ones may be newer
		}
	}
}

// NotesAfter implements [driver.NoteBatcher].
func (s *Store) NotesAfter(ctx context.Context, prefix, after string, n int) (notes []driver.Note, more bool, err error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	client, err := s.dial(ctx)
	if err != nil {
		return nil, false, s.fail("notes", err, read)
	}
	for {
		notes, more, err = s.notesAfter(ctx, client, prefix, after, n)
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return notes, more, s.fail("notes", err, read)
		}
	}
}

func (s *Store) notesAfter(ctx context.Context, client *cluster, prefix, after string, n int) (notes []driver.Note, more bool, err error) {
	from := s.keys.board(prefix)
	end, revision := clientv3.GetPrefixRangeEnd(from), int64(0)
	from = max(from, s.keys.board(after)+"\x00")
	for size := 0; ; {
		if from >= end { // after is behind all of them
			return notes, false, nil
		}
		resp, err := client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(int64(min(notesPage, n+1-len(notes)))), clientv3.WithRev(revision))
		if err != nil {
			return nil, false, err
		}
		for _, kv := range resp.Kvs {
			value := append([]byte{}, kv.Value...) // never nil: nil stands for removed
			notes = append(notes, driver.Note{Key: s.keys.note(kv.Key), Value: value, Version: kv.ModRevision})
			size += len(value)
			from = string(kv.Key) + "\x00"
		}
		if !resp.More || len(notes) > n || size > driver.NotesBatch {
			cut, more := driver.CutNotes(notes, after, n)
			return cut, more || resp.More, nil
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
	}
}

// removals is how many notes one Txn removes. etcd takes 128 operations.
const removals = 100

// RemoveNotes implements [driver.NoteBatcher]. If one note of a Txn has changed, they
// are removed one by one.
func (s *Store) RemoveNotes(ctx context.Context, notes []driver.Note) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	client, err := s.dial(ctx)
	if err != nil {
		return s.fail("remove notes", err, read)
	}
	for some := range slices.Chunk(notes, removals) {
		var when []clientv3.Cmp
		var then []clientv3.Op
		for _, n := range some {
			key := s.keys.board(n.Key)
			when = append(when, clientv3.Compare(clientv3.ModRevision(key), "=", n.Version))
			then = append(then, clientv3.OpDelete(key))
		}
		resp, p, err := client.Txn(ctx).If(when...).Then(then...).Land()
		if err != nil {
			return s.fail("remove notes", err, p)
		}
		if resp.Succeeded {
			continue
		}
		for _, n := range some {
			if _, p, err := s.post(ctx, driver.Note{Key: n.Key, Version: n.Version}); err != nil && !errors.Is(err, driver.ErrConflict) {
				return s.fail("remove notes", err, p)
			}
		}
	}
	return nil
}

// Post implements [driver.Store].
func (s *Store) Post(ctx context.Context, n driver.Note) (int64, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	version, sent, err := s.post(ctx, n)
	return version, s.fail("post", err, sent)
}

func (s *Store) post(ctx context.Context, n driver.Note) (int64, phase, error) {
	if err := tooLarge(fmt.Sprintf("the note %q", n.Key), len(n.Value), maxNote); err != nil {
		return 0, read, err
	}
	if n.Key == driver.LossesKey {
		return 0, read, fmt.Errorf("%w: no note has the key %q", errMisuse, n.Key)
	}
	client, err := s.dial(ctx)
	if err != nil {
		return 0, read, err
	}
	key := s.keys.board(n.Key)
	write := clientv3.OpPut(key, string(n.Value))
	if n.Value == nil {
		write = clientv3.OpDelete(key)
	}
	resp, p, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", n.Version)).
		Then(write).Else(clientv3.OpGet(key, clientv3.WithKeysOnly())).Once(n.Version == 0).Land()
	switch {
	case err != nil:
		return 0, p, err
	case !resp.Succeeded && p == doubt:
		return 0, doubt, moved(n, resp) // by somebody else's write, or by another copy
	case !resp.Succeeded:
		return 0, read, moved(n, resp)
	}
	if n.Value == nil {
		return 0, sent, nil
	}
	return resp.Header.Revision, sent, nil
}

func moved(n driver.Note, resp *clientv3.TxnResponse) error {
	version := int64(0)
	if kv := got(resp, 0); kv != nil {
		version = kv.ModRevision
	}
	return fmt.Errorf("%w: the note %q is at version %d, want %d", driver.ErrConflict, n.Key, version, n.Version)
}
