package drivertest

import (
	"context"
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func concurrencyRules() []rule {
	return []rule{
		{"concurrent-use", "all methods may be called at once; the head never goes back and the log reaches it", concurrentUse},
	}
}

func concurrentUse(b *bench) {
	const records, readers = 200, 4
	head := Install(b, b.s, 1)
	reading, stop := context.WithCancel(b.ctx)
	defer stop()
	var calls []<-chan error
	for i := range readers {
		s := b.s
		if i%2 == 1 {
			s = b.another()
		}
		calls = append(calls, async(func() error { return readAlong(b.ctx, reading.Done(), s, i) }))
	}
	for i := range records {
		head = Append(b, b.s, head, fmt.Append(nil, i))
	}
	stop()
	for _, call := range calls {
		require.NoError(b, b.await(call, "a concurrent reader"))
	}
	SameHead(b, head, ReadHead(b, b.another()))
	require.Len(b, ReadLog(b, b.s, 1), records)
}

// readAlong reads all there is, over and over until stop, and says what it
// saw go wrong.
func readAlong(ctx context.Context, stop <-chan struct{}, s driver.Store, reader int) error {
	note := driver.Note{Key: fmt.Sprintf("reader/%d", reader)}
	for seen := uint64(0); ; {
		head, err := s.Head(ctx)
		if err != nil {
			return err
		}
		if head.Revision < seen {
			return fmt.Errorf("the head went back from revision %d to %d", seen, head.Revision)
		}
		if seen, err = readOn(ctx, s, head.Revision); err != nil {
			return err
		}
		note.Value = fmt.Append(nil, seen)
		if note.Version, err = s.Post(ctx, note); err != nil {
			return err
		}
		if notes, err := s.Notes(ctx, note.Key); err != nil || len(notes) != 1 || notes[0].Version != note.Version {
			return fmt.Errorf("the board has %v and not version %d: %w", notes, note.Version, err)
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

// readOn reads the log around revision, which the head bore before, and
// returns the newest revision there.
func readOn(ctx context.Context, s driver.Store, revision uint64) (uint64, error) {
	last := revision - 1
	err := s.Log(ctx, last, func(rec driver.Record) error {
		if rec.Revision != last+1 {
			return fmt.Errorf("revision %d after %d", rec.Revision, last)
		}
		last = rec.Revision
		return nil
	})
	if err == nil && last < revision {
		err = fmt.Errorf("the log ends at revision %d, the head was at %d before", last, revision)
	}
	return last, err
}

func watchRules() []rule {
	return []rule{
		{"watch-wakes", "Watch wakes once when it begins, soon after every claim by any process, and returns when its context ends", watchWakes},
	}
}

func watchWakes(b *bench) {
	watcher, ok := b.s.(driver.Watcher)
	if !ok {
		b.Log("the store is no driver.Watcher, and promises no wake-ups: package catalog polls")
		return
	}
	woken := make(chan error, 1)
	wake := func() {
		select {
		case woken <- nil:
		default:
		}
	}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	watching := async(func() error { return watcher.Watch(ctx, wake) })
	_ = b.await(woken, "the wait for the first wake-up")
	for _, s := range []driver.Store{b.another(), b.s, b.another()} {
		b.drain(woken)
		Install(b, s, 1)
		_ = b.await(woken, "the wait for the wake-up after a claim")
	}
	cancel()
	if err := b.await(watching, "Watch after its context ended"); err != nil {
		b.classified(err, "Watch")
	}
}

// drain takes the wake-ups that earlier writes have left, until none comes.
func (b *bench) drain(woken <-chan error) {
	timeout, cancel := context.WithTimeout(b.ctx, quiet)
	defer cancel()
	for {
		select {
		case <-woken:
		case <-timeout.Done():
			return
		}
	}
}

func closeRules() []rule {
	return []rule{
		{"close-twice", "Close may be called twice", closeTwice},
		{"close-ends-the-store", "every call after Close fails, and other stores on the catalog go on", closeEndsTheStore},
	}
}

func closeTwice(b *bench) {
	Install(b, b.s, 1)
	require.NoError(b, b.s.Close())
	require.NoError(b, b.s.Close(), "the second time")
}

func closeEndsTheStore(b *bench) {
	head := Install(b, b.s, 1)
	other := b.another()
	before := b.picture()
	require.NoError(b, b.s.Close())
	for op, call := range b.calls(b.s, head) {
		err := b.await(async(func() error { return call(b.ctx) }), op)
		require.Error(b, err, op+" after Close")
		b.classified(err, op+" after Close")
	}
	b.unchanged(before, "calls after Close")
	Append(b, other, head, nil)
}
