package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// A watcher that has heard nothing for so long makes sure that its connection
// lives, and leads to the server that this store went on with: nothing else
// would tell it of one that vanished, or was replaced and still answers.
const (
	quietPeriod = 15 * time.Second
	pingTimeout = 5 * time.Second
)

// Watch calls wake after every claim and after every note posted, by LISTEN on
// a connection of its own. Behind a pooler in transaction mode it never calls
// wake again after the first time, without an error.
func (s *Store) Watch(ctx context.Context, wake func()) error {
	if !s.joinLater() {
		return s.fail("watch", errClosed, notSent)
	}
	defer s.watchers.Done()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.root, cancel)()
	err := s.listen(watching, wake)
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case s.root.Err() != nil:
		err = errClosed
	}
	return s.fail("watch", err, notSent)
}

// joinLater has Close wait for one more watcher, and reports whether it does: a
// closed store starts nothing.
func (s *Store) joinLater() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.watchers.Add(1)
	return true
}

// listen calls wake for every notification until an error ends it.
func (s *Store) listen(ctx context.Context, wake func()) error {
	conn, err := pgx.ConnectConfig(ctx, s.watching.Copy())
	if err != nil {
		return err
	}
	defer hangUp(conn)
	if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{channel(s.catalog)}.Sanitize()); err != nil {
		return err
	}
	wake()
	for {
		err := s.waitOnce(ctx, conn)
		switch {
		case err == nil:
			wake()
		case !errors.Is(err, errQuiet):
			return err
		}
	}
}

var errQuiet = errors.New("nothing was heard")

// waitOnce waits for a notification. It returns errQuiet where none came and
// the server still answers.
func (s *Store) waitOnce(ctx context.Context, conn *pgx.Conn) error {
	quiet, cancel := context.WithTimeout(ctx, s.quiet)
	defer cancel()
	_, err := conn.WaitForNotification(quiet)
	if err == nil || ctx.Err() != nil || quiet.Err() == nil {
		return err
	}
	ping, stop := context.WithTimeout(ctx, pingTimeout)
	defer stop()
	var started time.Time
	if err := conn.QueryRow(ping, `select pg_postmaster_start_time()`, s.args()...).Scan(&started); err != nil {
		return err
	}
	if known := s.place.Load(); known != nil && !known.started.Equal(started) {
		return errMoved
	}
	return errQuiet
}

func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), abandonTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}
