package postgres

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Who has heard nothing for so long makes sure that the connection lives, and
// leads to the server that the stores went on with: nothing else would tell of
// one that vanished, or was replaced and still answers.
const (
	quietPeriod = 15 * time.Second
	pingTimeout = 5 * time.Second
)

// linger is for how long the connection stays where nobody watches any more: who
// has followed watches again once it has claimed, and for the server to end one
// process and begin another costs more than the claim.
const linger = 5 * time.Second

// An ear is the one connection that listens, for all watchers. It is there as
// long as somebody watches, and for a while longer.
type ear struct {
	dial   func(context.Context) (*pgx.Conn, error)
	quiet  time.Duration // after which the connection is looked at
	linger time.Duration
	root   context.Context
	end    context.CancelFunc
	tasks  sync.WaitGroup

	mu       sync.Mutex
	running  bool
	watchers map[*watcher]struct{}
	changed  bool               // the watchers have, and the connection was not told yet
	rouse    context.CancelFunc // ends the connection's wait; nil where it does not wait
}

// A watcher is one call of Watch.
type watcher struct {
	store   *Store
	channel string        // what is listened to
	begun   bool          // the server was told of its channel; the ear's
	news    chan struct{} // one waits at most
	ended   chan struct{}
	reason  error // before ended is closed, the ear's
}

func newEar(ctx context.Context, dial func(context.Context) (*pgx.Conn, error)) *ear {
	e := &ear{dial: dial, quiet: quietPeriod, linger: linger, watchers: map[*watcher]struct{}{}}
	e.root, e.end = context.WithCancel(context.WithoutCancel(ctx))
	return e
}

// close ends the connection and the watchers that are left.
func (e *ear) close() {
	e.end()
	e.tasks.Wait()
}

// join adds a watcher, and begins to listen where nobody does yet.
func (e *ear) join(s *Store) *watcher {
	w := &watcher{store: s, channel: channel(s.catalog), news: make(chan struct{}, 1), ended: make(chan struct{})}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watchers[w] = struct{}{}
	e.change()
	if !e.running {
		e.running = true
		e.tasks.Go(e.run)
	}
	return w
}

func (e *ear) leave(w *watcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.watchers, w)
	e.change()
}

// change has the connection look at the watchers again. The caller holds mu.
func (e *ear) change() {
	e.changed = true
	if e.rouse != nil {
		e.rouse()
	}
}

// run listens until nobody has watched for a while, or until an error, of which
// it tells every watcher.
func (e *ear) run() {
	err := e.listen()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running = false
	if errors.Is(err, errUnwatched) && len(e.watchers) > 0 { // one has come since
		e.running = true
		e.tasks.Go(e.run)
		return
	}
	for w := range e.watchers {
		w.reason = err
		close(w.ended)
	}
	clear(e.watchers)
}

var (
	errUnwatched = errors.New("nobody watches any more")
	errRoused    = errors.New("the watchers have changed")
)

func (e *ear) listen() error {
	conn, err := e.dial(e.root)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	heard := map[string]bool{} // the channels that the server was told of
	for {
		channel, err := e.next(conn, heard)
		if err != nil {
			return err
		}
		e.tell(channel)
	}
}

// next returns the channel of the next notification.
func (e *ear) next(conn *pgx.Conn, heard map[string]bool) (channel string, err error) {
	for {
		if err := e.settle(conn, heard); err != nil {
			return "", err
		}
		channel, err := e.wait(conn)
		switch {
		case errors.Is(err, errRoused):
		case err != nil:
			return "", err
		case channel != "":
			return channel, nil
		}
	}
}

// settle tells the server of the channels that are watched now, and the
// watchers who have come that they are.
func (e *ear) settle(conn *pgx.Conn, heard map[string]bool) error {
	for {
		fresh, statements := e.changes(heard)
		if len(fresh) == 0 && statements == "" {
			return nil
		}
		if statements != "" {
			if err := e.say(conn, statements); err != nil {
				return err
			}
		}
		for _, w := range fresh {
			w.begun = true
			w.wake()
		}
	}
}

// say sends statements, to a server that may have vanished.
func (e *ear) say(conn *pgx.Conn, statements string) error {
	ctx, cancel := context.WithTimeout(e.root, pingTimeout)
	defer cancel()
	_, err := conn.Exec(ctx, statements)
	return err
}

func (e *ear) unwatched() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.watchers) == 0
}

// changes returns the watchers that have come, and the statements by which the
// server learns what is watched.
func (e *ear) changes(heard map[string]bool) (fresh []*watcher, statements string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.changed {
		return nil, ""
	}
	e.changed = false
	var b strings.Builder
	wanted := make(map[string]bool, len(e.watchers))
	for w := range e.watchers {
		wanted[w.channel] = true
		if !w.begun {
			fresh = append(fresh, w)
		}
		if !heard[w.channel] {
			heard[w.channel] = true
			b.WriteString("listen " + pgx.Identifier{w.channel}.Sanitize() + ";")
		}
	}
	for channel := range heard {
		if !wanted[channel] {
			delete(heard, channel)
			b.WriteString("unlisten " + pgx.Identifier{channel}.Sanitize() + ";")
		}
	}
	return fresh, b.String()
}

// wait returns the channel of a notification, or errRoused, or "" where none
// came for a while and the server still answers, or errUnwatched.
func (e *ear) wait(conn *pgx.Conn) (channel string, err error) {
	limit, unwatched := e.quiet, e.unwatched()
	if unwatched {
		limit = e.linger
	}
	quiet, cancel := context.WithTimeout(e.root, limit)
	defer cancel()
	if !e.sleepy(cancel) {
		return "", errRoused
	}
	n, err := conn.WaitForNotification(quiet)
	roused := e.awake()
	switch {
	case err == nil:
		return n.Channel, nil
	case e.root.Err() != nil || quiet.Err() == nil || conn.IsClosed():
		return "", err
	case roused:
		return "", errRoused
	case unwatched:
		return "", errUnwatched
	}
	ping, stop := context.WithTimeout(e.root, pingTimeout)
	defer stop()
	var started time.Time
	if err := conn.QueryRow(ping, `select pg_catalog.pg_postmaster_start_time()`, pgx.QueryExecModeExec).Scan(&started); err != nil {
		return "", err
	}
	return "", e.stays(started)
}

// stays returns errMoved where a store has gone on with another server than the
// one that was started then.
func (e *ear) stays(started time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for w := range e.watchers {
		if known := w.store.place.Load(); known != nil && !known.started.Equal(started) {
			return errMoved
		}
	}
	return nil
}

// sleepy lets rouse end the wait that follows, and returns false where there is
// a reason not to begin it.
func (e *ear) sleepy(rouse context.CancelFunc) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.changed {
		return false
	}
	e.rouse = rouse
	return true
}

// awake reports whether the wait was ended by rouse.
func (e *ear) awake() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rouse = nil
	return e.changed
}

// tell wakes who watches a channel.
func (e *ear) tell(channel string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for w := range e.watchers {
		if w.channel == channel && w.begun {
			w.wake()
		}
	}
}

func (w *watcher) wake() {
	select {
	case w.news <- struct{}{}:
	default: // one is waiting already
	}
}

// hangUp ends a connection, also one that pgx ends by itself because a statement
// was cut short.
func hangUp(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), abandonTimeout)
	defer cancel()
	_ = conn.Close(ctx)
	select {
	case <-conn.PgConn().CleanupDone():
	case <-ctx.Done():
	}
}
