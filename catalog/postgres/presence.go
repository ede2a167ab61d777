package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/gather"
)

const (
	// presencePoll is how often a watcher looks whether a claim is still shown.
	presencePoll = 250 * time.Millisecond

	// presencesAtOnce bounds how many claims one statement looks for.
	presencesAtOnce = 1000

	// mostShown bounds the locks of a process: the server's table of them has
	// room for 6,400 by default, and whose lock finds none fails, whoever it is.
	mostShown = 1000
)

// errPooled: a pooler hands sessions around, and none of them is this process's.
var errPooled = fmt.Errorf("%w: a pooler stands between here and the server", driver.ErrNoPresence)

var errCrowded = fmt.Errorf("this process shows %d claims already", mostShown)

// presenceLock is the number of the advisory lock that shows a claim.
func presenceLock(claim driver.ID) int64 { return int64(binary.BigEndian.Uint64(claim[:8])) }

// Present implements [driver.Presenter], by a lock that the session of the
// listening connection holds, shared, so that nobody waits for it. Nor does it
// wait itself: any user of the database may hold the same lock, and then that one
// is seen instead. A process shows 1,000 claims at most.
func (s *Store) Present(ctx context.Context, claim driver.ID, shown func()) error {
	if !s.joinLater() {
		return s.fail("present", errClosed, notSent)
	}
	defer s.watchers.Done()
	defer s.shown.Add(-1)
	if s.shown.Add(1) > mostShown {
		return s.fail("present", errCrowded, notSent)
	}
	if _, err := s.isShown(ctx, claim); err != nil { // of a pooler the first answer tells
		return s.fail("present", err, notSent)
	}
	lock := presenceLock(claim)
	w := s.ear.add(&watcher{
		store: s, channel: fmt.Sprintf("presence %d", lock),
		begin: fmt.Sprintf("select pg_catalog.pg_try_advisory_lock_shared(%d)", lock), end: fmt.Sprintf("select pg_catalog.pg_advisory_unlock_shared(%d)", lock),
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

// WatchPresence implements [driver.PresenceWatcher]. It looks four times a second,
// on a connection that is kept for liveness.
func (s *Store) WatchPresence(ctx context.Context, claim driver.ID, lost func()) error {
	if !s.joinLater() {
		return s.fail("watch presence", errClosed, notSent)
	}
	defer s.watchers.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.root, cancel)()
	next := time.NewTimer(presencePoll)
	defer next.Stop()
	seen := false
	for {
		there, err := s.isShown(ctx, claim)
		switch {
		case s.root.Err() != nil:
			return s.fail("watch presence", errClosed, notSent)
		case err != nil:
			return s.fail("watch presence", err, notSent)
		case seen && !there:
			lost()
		}
		seen = there
		next.Reset(s.untilLook())
		select {
		case <-next.C:
		case <-ctx.Done():
		}
	}
}

// untilLook returns how long it is to the next look. Watchers that share
// connections look at the same instants, so that one statement looks for all.
func (l *links) untilLook() time.Duration {
	return presencePoll - time.Since(l.born)%presencePoll
}

// isShown asks, together with whoever else does at the same time.
func (s *Store) isShown(ctx context.Context, claim driver.ID) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return s.presences.Ask(bounded, claim)
}

func (l *links) seeOne(ctx context.Context, claim driver.ID) (bool, error) {
	answer := l.seeAll(ctx, []driver.ID{claim})[0]
	return answer.Value, answer.Err
}

// seeAll looks for claims by one statement. Where the connection was broken it
// tries another one.
func (l *links) seeAll(ctx context.Context, claims []driver.ID) []gather.Answer[bool] {
	held, broken, err := l.readLocks(ctx, claims)
	if broken {
		held, _, err = l.readLocks(ctx, claims)
	}
	answers := make([]gather.Answer[bool], len(claims))
	for i, claim := range claims {
		answers[i] = gather.Answer[bool]{Value: held[presenceLock(claim)], Err: err}
	}
	return answers
}

// locksSQL finds those locks that somebody holds; the number of a lock is kept in
// two halves.
const locksSQL = `select number from (
	select classid::bigint << 32 | objid::bigint as number from pg_catalog.pg_locks
	where locktype = 'advisory' and objsubid = 1 and granted
		and database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
	) held where number = any ($1::bigint[])`

func (l *links) readLocks(ctx context.Context, claims []driver.ID) (held map[int64]bool, broken bool, err error) {
	conn, err := l.acquire(ctx, l.liveness)
	if err != nil {
		return nil, false, err
	}
	defer l.give(conn)
	if l.unprepared.Load() {
		return nil, false, errPooled
	}
	wanted := make([]int64, len(claims))
	for i, claim := range claims {
		wanted[i] = presenceLock(claim)
	}
	rows, err := conn.Query(ctx, locksSQL, l.args(wanted)...)
	if err != nil {
		return nil, l.broke(ctx, conn), err
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	held = make(map[int64]bool, len(found))
	for _, number := range found {
		held[number] = true
	}
	return held, l.broke(ctx, conn), err
}
