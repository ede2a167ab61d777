package postgres

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// notifyTimeout bounds one sending. Another user's transaction can hold the
	// server's lock on the queue of notifications for as long as it likes.
	notifyTimeout = 2 * time.Second

	// lastNotify is how long close waits for what is still to be sent, so that
	// a command that claims and ends is noticed at once.
	lastNotify = time.Second
)

// notifySQL is sent on its own, never in the transaction of a claim: NOTIFY
// fails at commit while the server's queue is full, which any user of any of its
// databases can bring about, and it waits there for every other NOTIFY.
const notifySQL = `select pg_catalog.pg_notify(channel, '') from pg_catalog.unnest($1::text[]) as channel`

// A notifier sends the wake-ups of claims behind their commits. They are hints:
// one that fails is logged and dropped, and the watchers find the claim when they
// poll. One goroutine sends at a time, so that no more than one connection waits.
type notifier struct {
	send func(ctx context.Context, channels []string) error
	log  *slog.Logger
	root context.Context
	end  context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	pending map[string]struct{} // channels
	running bool
	closed  bool
}

func newNotifier(ctx context.Context, log *slog.Logger, send func(context.Context, []string) error) *notifier {
	n := &notifier{send: send, log: log, pending: map[string]struct{}{}}
	n.root, n.end = context.WithCancel(context.WithoutCancel(ctx))
	return n
}

// notify has the watchers of a channel woken soon. It waits for nothing.
func (n *notifier) notify(channel string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.pending[channel] = struct{}{}
	if !n.running {
		n.running = true
		n.done.Go(n.run)
	}
}

func (n *notifier) run() {
	for channels := n.next(); len(channels) > 0; channels = n.next() {
		ctx, cancel := context.WithTimeout(n.root, notifyTimeout)
		err := n.send(ctx, channels)
		cancel()
		if err != nil && n.root.Err() == nil {
			n.log.Warn("the watchers of a claim were not notified, and will find it when they poll", "channels", len(channels), "err", err)
		}
	}
}

// next returns the channels that are pending, and none if the goroutine is to
// end.
func (n *notifier) next() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	channels := make([]string, 0, len(n.pending))
	for c := range n.pending {
		channels = append(channels, c)
	}
	clear(n.pending)
	n.running = len(channels) > 0
	return channels
}

// close waits a moment for what is to be sent, and then cuts it short.
func (n *notifier) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	defer n.end()
	defer time.AfterFunc(lastNotify, n.end).Stop()
	n.done.Wait()
}

// sendNotifications notifies channels on a connection for liveness, by one
// statement that needs no session.
func (l *links) sendNotifications(ctx context.Context, channels []string) error {
	conn, err := l.acquire(ctx, l.liveness)
	if err != nil {
		return err
	}
	defer l.give(conn)
	_, err = conn.Exec(ctx, notifySQL, pgx.QueryExecModeExec, channels)
	return err
}
