// Package etcd keeps a catalog in etcd, beneath one key prefix.
//
// Each commit is one Txn, which compares the end of the log with the one that
// the committer last saw, so that of any number of racing commits one lands and
// the others are refused. A claim first writes a claim-wanted key under a
// short lease; commits compare its absence and wait while it is there, so
// that a claim never races commits, and a claimer that dies releases them
// when its lease ends. The lease is a courtesy and never safety: the claim's
// own Txn compares head and end, the claim-wanted key and the notes it rests on.
//
// Beneath the prefix, which the catalog must have to itself:
//
//	head          the head right after the newest claim, frozen text form;
//	              written by claims alone
//	head\0end     revision and id of the newest commit; written by commits (\0
//	              is a byte of zero: nothing else can stand between the two)
//	token         the newest claim; written by claims alone, so that its mod
//	              revision moves with the token and not with commits; guarded
//	              writes compare it
//	token\0losses what the cluster was found to have lost; compared by claims
//	log/%016x     the records, by revision
//	claim/%016x   the claims, by revision
//	board/KEY     the notes; a note's version is its mod revision
//	wanted        who claims just now; leased
//	scratch/NAME/ a catalog like this one, for milliseconds, in which a check of
//	              the store races
//	presence/ID   of earlier builds; leased
//	snapshot      the published snapshot, frozen text form
//	part/ID/%08x  the parts of snapshots, by the snapshot's id
//	staged/%016x/ID
//	              the manifests of large commits under way, by revision and
//	              commit: whose they are, and how many chunks they have
//	payload/%016x/ID/%08x
//	              the chunks of payloads above 1 MiB, by revision and commit,
//	              published or staged
//
// A payload above 1 MiB is staged in chunks, which the commit's Txn makes part
// of the log by the record that says how large it is; a chunk that belongs to
// no record has a manifest. A commit that was cut short goes on where it
// stopped when it is sent again. A claim is not sent again: all of a large one
// must arrive within the time of one Install.
//
// Trim deletes about 1,000 records in a Txn. That gives no space back: etcd
// keeps what was deleted in its history until it is compacted, and its file
// shrinks only when it is defragmented. So run it with
// --auto-compaction-retention, without which the quota is reached one day
// however short the log is.
//
// The package does not decide which token wins, and it does not retry. One call
// may send copies of a request to several servers, of which one lands at most, and
// says what is known of all of them: see race.go. A write whose answer
// was lost has outcome unknown, whichever error came instead; so has one that
// etcd answers with its space alarm, as etcd applies the write that crosses the
// quota and answers it like those that it refuses afterwards.
package etcd

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
)

// The sizes that a store takes. etcd refuses a request above 1.5 MiB unless
// its --max-request-bytes says otherwise: a payload above chunkBytes goes in
// several; head and claim need the rest.
const (
	maxPayload = 64 << 20
	chunkBytes = 1 << 20
	maxNote    = 256 << 10
)

// defaultTimeout bounds a call whose context has no deadline: etcd's client
// would wait for ever for a server that is gone.
const defaultTimeout = 10 * time.Second

var (
	_ driver.Store   = (*Store)(nil)
	_ driver.Watcher = (*Store)(nil)

	_ driver.ClaimWatcher = (*Store)(nil)
	_ driver.Warmer       = (*Store)(nil)
	_ driver.NoteBatcher  = (*Store)(nil)
)

// A Store is one catalog in etcd. It implements [driver.Store] and
// [driver.Watcher].
type Store struct {
	*cluster

	name    string
	keys    keys
	release func() error // what Close does besides: closes the cluster, or takes leave of it

	root  context.Context // ends last, in Close
	end   context.CancelFunc
	alive context.Context // ends first: no claim is kept alive any more
	stop  context.CancelFunc

	newest atomic.Pointer[decoded] // the claim read last; nil before the first
	spare  spare

	mu     sync.Mutex
	closed bool
	tasks  sync.WaitGroup
}

// Open returns the catalog at url, which has the form
//
//	etcd://[user:password@]host:port[,host:port...]/prefix[?name=value&name=value]
//
// or the same with the scheme etcds, for TLS with the system's roots or
// [Config.TLS]. Where url names no user, FENCEPOST_ETCD_USERNAME and
// FENCEPOST_ETCD_PASSWORD do. With [Config.Client], url may leave out its
// hosts: etcd:///prefix.
//
// The parameters set fields of cfg, each a time such as 500ms: lease, hedge-after
// (or off), keepalive, keepalive-timeout, dial-timeout, claim-ttl.
//
// Open asks the server nothing; the first call does. The client is the store's
// own: for many catalogs of one cluster, see [Connect]. An error names every
// mistake in url and cfg, and no secret.
func Open(ctx context.Context, url string, cfg Config) (*Store, error) {
	to, cfg, err := parse(url, cfg, true)
	if err != nil {
		return nil, configError(err)
	}
	c := newCluster(ctx, to, cfg)
	s := newStore(ctx, c, to.prefix)
	s.release = c.close
	return s, nil
}

func newStore(ctx context.Context, c *cluster, prefix string) *Store {
	to := c.to
	to.prefix = prefix
	s := &Store{cluster: c, name: to.String(), keys: keys{prefix}}
	s.root, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.alive, s.stop = context.WithCancel(s.root)
	return s
}

// String names the store, without user and password.
func (s *Store) String() string { return s.name }

// Limits returns 64 MiB for payloads and 256 KiB for notes.
func (s *Store) Limits() driver.Limits { return driver.Limits{Payload: maxPayload, Note: maxNote} }

// Close ends the claims under way, waits until nothing of the store runs any
// more, which takes two seconds at most, and closes the client unless it was
// handed in or is a [Server]'s.
func (s *Store) Close() error {
	if !s.shut() {
		return nil
	}
	return s.fail("close", s.release(), read)
}

// shut ends what the store does, and reports whether it had not been ended
// before.
func (s *Store) shut() bool {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if first {
		s.stop()
		s.tasks.Wait()
		s.end()
	}
	return first
}

// spawn runs task in a goroutine that Close joins, and reports whether it
// does: a closed store starts nothing.
func (s *Store) spawn(task func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.tasks.Go(task)
	return true
}

// bound gives ctx a deadline where it has none.
func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, defaultTimeout)
}

// dial returns the cluster, unless the store is closed.
func (s *Store) dial(ctx context.Context) (*cluster, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	return s.cluster, ctx.Err()
}

// fail returns err with its class, or nil for nil. A write that was sent is of
// unknown outcome unless err is a refusal.
func (s *Store) fail(op string, err error, sent phase) error {
	if err == nil {
		return nil
	}
	class, err := classify(err, sent)
	return &driver.Error{Class: class, Store: s.name, Op: op, Err: err}
}

// tooLarge returns an error where size is above limit.
func tooLarge(what string, size, limit int) error {
	if size <= limit {
		return nil
	}
	return fmt.Errorf("%w: %s of %d bytes, the limit is %d", driver.ErrTooLarge, what, size, limit)
}

// corrupt returns an error that wraps driver.ErrCorrupt.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", driver.ErrCorrupt, fmt.Errorf(format, args...))
}

// printable returns text from the store, fit for one line of a person's log.
func printable(text []byte) string {
	const most = 200
	if len(text) > most {
		text = text[:most]
	}
	return strings.Trim(fmt.Sprintf("%q", text), `"`)
}
