// Package memory keeps a catalog in memory, for the tests of applications.
//
// It keeps the whole contract of package driver, so that what an application
// does on it, it does on a durable store: the same conflicts, the same waits,
// the same deadlines, the same errors. Nothing survives the process. Whoever
// holds the [Store] shares the catalog; [Store.Open] gives one more handle on
// it, which stands for another process.
//
// What a durable store does only on a bad day, this one does when told to:
// [Store.Inject] refuses calls, loses requests and answers and lets writes
// land late, [Store.Fill] makes it full, and [Store.Rollback] takes back
// commits that it had acknowledged, as an asynchronous fail-over does.
//
// The package has no rules of its own: which token wins is decided above it.
package memory

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
)

// The defaults of Config.
const (
	DefaultName       = "memory"
	DefaultPayload    = 16 << 20
	DefaultNote       = 1 << 20
	DefaultClaimBound = 10 * time.Second
)

// Config has the settings of a Store. The zero value means the defaults.
type Config struct {
	Name       string        // what String says, behind "memory:"; DefaultName where empty
	Payload    int           // largest payload of a record, in bytes; DefaultPayload where not above zero
	Note       int           // largest value of a note, in bytes; DefaultNote where not above zero
	ClaimBound time.Duration // how long a claim may go on after its deadline; DefaultClaimBound where not above zero
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.Payload <= 0 {
		c.Payload = DefaultPayload
	}
	if c.Note <= 0 {
		c.Note = DefaultNote
	}
	if c.ClaimBound <= 0 {
		c.ClaimBound = DefaultClaimBound
	}
	return c
}

// A Store is one process's handle on a catalog in memory. It implements
// driver.Store and driver.Watcher, and may be handed to many catalogs.
//
// Faults that were injected and writes that are delayed belong to the handle;
// Fill and Rollback concern all handles on the catalog.
type Store struct {
	shared  *shared
	process int64 // numbers the handles on one catalog, from 1
	faults  faults
	closing sync.Once
	closed  chan struct{}
}

var (
	_ driver.Store       = (*Store)(nil)
	_ driver.Watcher     = (*Store)(nil)
	_ driver.NoteBatcher = (*Store)(nil)
)

// New returns a handle on a new, empty catalog with the default settings.
func New() *Store { return NewWith(Config{}) }

// NewWith returns a handle on a new, empty catalog with the settings of c.
func NewWith(c Config) *Store { return newShared(c.withDefaults()).open() }

// Open returns one more handle on the catalog of s, as another process would
// have. Closing one handle leaves the others open; s may be closed already.
func (s *Store) Open() *Store { return s.shared.open() }

// String names the catalog, such as "memory:memory".
func (s *Store) String() string { return "memory:" + s.shared.config.Name }

// Limits returns the sizes that the store takes.
func (s *Store) Limits() driver.Limits {
	return driver.Limits{Payload: s.shared.config.Payload, Note: s.shared.config.Note}
}

// Close ends this handle, as the death of its process would: its claim under
// way is released, its calls under way fail, its delayed writes are still to come. It always returns nil.
func (s *Store) Close() error {
	s.closing.Do(func() {
		close(s.closed)
		s.shared.endClaimOf(s.process)
	})
	return nil
}

// begin refuses a call of a closed handle or with an ended context.
func (s *Store) begin(ctx context.Context, op string) error {
	if err := s.isOpen(); err != nil {
		return s.fail(op, err)
	}
	if err := ctx.Err(); err != nil {
		return s.fail(op, err)
	}
	return nil
}

// isOpen returns errClosed once the handle is closed.
func (s *Store) isOpen() error {
	select {
	case <-s.closed:
		return errClosed
	default:
		return nil
	}
}

// shared is what the handles on one catalog share.
type shared struct {
	config    Config
	processes atomic.Int64

	mu       sync.Mutex
	head     driver.Head
	log      []driver.Record // log[i] has revision i+1
	trimmed  uint64          // up to which revision the log is as good as deleted: Rollback can bring it back
	snapshot driver.Snapshot
	parts    map[driver.ID][][]byte // of the snapshot, and staged
	claims   []driver.Claim
	notes    map[string]driver.Note
	record   driver.Losses // of losses
	version  int64         // the newest of any note, or of the losses
	full     bool
	claiming *claiming     // the claim under way; nil where none is
	changed  chan struct{} // closed, and replaced, at every change
}

func newShared(c Config) *shared {
	return &shared{
		config: c, notes: make(map[string]driver.Note), parts: make(map[driver.ID][][]byte), changed: make(chan struct{}),
	}
}

func (d *shared) open() *Store {
	return &Store{shared: d, process: d.processes.Add(1), closed: make(chan struct{})}
}

// announce wakes whoever waits for a change. The caller holds mu.
func (d *shared) announce() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// lockIdle locks mu at an instant at which no claim is under way. It waits for
// that until ctx ends or the handle is closed, and then returns, unlocked, an
// error that names who claims.
func (s *Store) lockIdle(ctx context.Context) error {
	d := s.shared
	d.mu.Lock()
	for d.claiming != nil {
		by, changed := d.claiming.store.process, d.changed
		d.mu.Unlock()
		select {
		case <-changed:
		case <-s.closed:
			return errClosed
		case <-ctx.Done():
			return fmt.Errorf("the claim of process %d was under way: %w", by, ctx.Err())
		}
		d.mu.Lock()
	}
	if err := s.isOpen(); err != nil {
		d.mu.Unlock()
		return err
	}
	return nil
}
