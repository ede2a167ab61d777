package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

const (
	// warmConns are for a claim or a commit, and for the sign of life that
	// goes beside it.
	warmConns = 2

	// warmFor is for how long nothing needs to be looked at again, however
	// many catalogs of a Server wait.
	warmFor = time.Second
)

// Warm implements [driver.Warmer]: it opens two connections, one where the pool
// was handed in, and has each claim and commit once for a catalog that can't
// exist. That changes no row, locks none, and leaves the statements prepared and
// the server's process with its caches filled. It takes no connection that
// somebody may want, and behind a pooler, or before anything was claimed, does
// nothing.
func (s *Store) Warm(ctx context.Context) error {
	if s.root.Err() != nil {
		return s.fail("warm", errClosed, notSent)
	}
	if s.unprepared.Load() || !s.warming.TryLock() {
		return nil
	}
	defer s.warming.Unlock()
	if time.Since(s.warmed) < warmFor {
		return nil
	}
	if head, err := s.Head(ctx); err != nil || head.IsZero() {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.root, cancel)()
	n := 1
	if s.ownPool {
		n = warmConns
	}
	for range n {
		if stat := s.pool.Stat(); stat.MaxConns()-stat.AcquiredConns() < 2 {
			return nil // the last one is for others
		}
		conn, err := s.acquire(ctx, s.pool)
		if err != nil {
			return s.fail("warm", err, notSent)
		}
		defer s.give(conn)
		if err := s.warmUp(ctx, conn); err != nil {
			s.leave(conn, err)
			return s.fail("warm", err, notSent)
		}
	}
	s.warmed = time.Now()
	return nil
}

// warmUp warms one connection, unless that was done.
func (s *Store) warmUp(ctx context.Context, conn *pgxpool.Conn) error {
	marks := conn.Conn().PgConn().CustomData()
	if marks[markWarm] == true {
		return nil
	}
	// No catalog has such a name, and no other call this one's.
	nobody := &Store{links: s.links, name: s.name, catalog: "?" + rand.Text(), claims: map[*claiming]struct{}{}}
	was := driver.Claim{Token: fence.Token{Generation: 1, Epoch: 1}, ID: driver.NewID(), Revision: 1, DataVersion: 1}
	next := was
	next.Revision, next.ID, next.Token.Epoch, next.PriorClaim, next.PriorCommit = 2, driver.NewID(), 2, was.ID, was.ID
	rec := driver.Record{Revision: next.Revision, ID: next.ID, Token: next.Token}

	c := &claiming{store: nobody, conn: conn}
	if err := c.tryBegin(ctx, c.lockRows); err != nil {
		if c.tx != nil {
			rollback(c.tx)
		}
		return err
	}
	c.state.head = was.Head()
	claimErr := c.write(ctx, next, rec, []driver.Note{{Key: "?", Version: 1}})
	rollback(c.tx)
	nobody.place.Store(&place{started: c.begun.started, claim: was.ID})
	_, appendErr := nobody.append(ctx, conn, was.Head(), rec)
	_, postErr := nobody.post(ctx, conn, nobody.newPosting(driver.Note{Key: "?", Value: []byte{}, Version: 1}))
	for _, err := range []error{claimErr, appendErr, postErr} {
		if err != nil && !errors.Is(err, driver.ErrConflict) { // there is no head, and no note
			return err
		}
	}
	if _, err := nobody.notesBy(ctx, conn, "?"); err != nil {
		return err
	}
	marks[markWarm] = true
	return nil
}
