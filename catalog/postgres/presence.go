package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
)

// presencePoll is how often a watcher looks whether a claim is still shown.
const presencePoll = 250 * time.Millisecond

// errPooled: a pooler hands sessions around, and none of them is this process's.
var errPooled = fmt.Errorf("%w: a pooler stands between here and the server", driver.ErrNoPresence)

// presenceLock is the number of the advisory lock that shows a claim.
func presenceLock(claim driver.ID) int64 { return int64(binary.BigEndian.Uint64(claim[:8])) }

// Present implements [driver.Presenter], by a lock that the session of the
// listening connection holds, shared, so that nobody waits for it.
func (s *Store) Present(ctx context.Context, claim driver.ID, shown func()) error {
	if !s.joinLater() {
		return s.fail("present", errClosed, notSent)
	}
	defer s.watchers.Done()
	if _, err := s.present(ctx, claim); err != nil { // of a pooler the first answer tells
		return s.fail("present", err, notSent)
	}
	lock := presenceLock(claim)
	w := s.ear.add(&watcher{
		store: s, channel: fmt.Sprintf("presence %d", lock),
		begin: fmt.Sprintf("select pg_advisory_lock_shared(%d)", lock), end: fmt.Sprintf("select pg_advisory_unlock_shared(%d)", lock),
	})
	defer s.ear.leave(w)
	for {
		select {
		case <-w.news:
			shown()
		case <-w.ended:
			return s.fail("present", w.reason, notSent)
		case <-ctx.Done():
			return s.fail("present", ctx.Err(), notSent)
		case <-s.root.Done():
			return s.fail("present", errClosed, notSent)
		}
	}
}

// presenceSQL looks for the lock; a lock's number is shown in two halves.
const presenceSQL = `select exists (
	select from pg_catalog.pg_locks
	where locktype = 'advisory' and objsubid = 1 and granted
		and database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
		and classid::bigint << 32 | objid::bigint = $1)`

// WatchPresence implements [driver.PresenceWatcher]. It looks four times a second.
func (s *Store) WatchPresence(ctx context.Context, claim driver.ID, lost func()) error {
	if !s.joinLater() {
		return s.fail("watch presence", errClosed, notSent)
	}
	defer s.watchers.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.root, cancel)()
	tick := time.NewTicker(presencePoll)
	defer tick.Stop()
	seen := false
	for {
		there, err := s.present(ctx, claim)
		switch {
		case s.root.Err() != nil:
			return s.fail("watch presence", errClosed, notSent)
		case err != nil:
			return s.fail("watch presence", err, notSent)
		case seen && !there:
			lost()
		}
		seen = there
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// present reports whether claim is shown.
func (s *Store) present(ctx context.Context, claim driver.ID) (there bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	conn, err := s.acquire(bounded, s.liveness)
	if err != nil {
		return false, err
	}
	defer give(conn)
	if s.unprepared.Load() {
		return false, errPooled
	}
	err = conn.QueryRow(bounded, presenceSQL, s.args(presenceLock(claim))...).Scan(&there)
	return there, err
}
