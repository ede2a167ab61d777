package drivertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
)

// recorder is a test that may fail without failing the test that it stands in.
type recorder struct {
	testing.TB
	mu     sync.Mutex
	failed bool
	text   strings.Builder
}

func (r *recorder) Errorf(format string, args ...any) {
	r.Logf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.text, format+"\n", args...)
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) FailNow() {
	r.mu.Lock()
	r.failed = true
	r.mu.Unlock()
	runtime.Goexit()
}

// record checks r on the stores of open and returns what became of it.
func record(t *testing.T, r rule, open func() driver.Store) *recorder {
	rec := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.check(rec, time.Second, open)
	}()
	<-done
	return rec
}

func ruleNamed(t *testing.T, name string) rule {
	rules := storeRules()
	i := slices.IndexFunc(rules, func(r rule) bool { return r.name == name })
	require.GreaterOrEqual(t, i, 0, "no rule %q", name)
	return rules[i]
}

func TestEveryRuleHasItsOwnNameAndASentence(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range storeRules() {
		require.False(t, seen[r.name], r.name)
		seen[r.name] = true
		require.Greater(t, len(strings.Fields(r.rule)), 3, r.name)
		require.NotNil(t, r.test, r.name)
	}
}

func TestASoundStoreBreaksNoRule(t *testing.T) {
	catalog := memory.New()
	rec := record(t, ruleNamed(t, "append-elsewhere"), func() driver.Store { return catalog.Open() })
	require.False(t, rec.Failed(), rec.text.String())
}

func TestEveryBrokenStoreBreaksItsRules(t *testing.T) {
	all := brokenStores()
	maps.Copy(all, brokenCompactions())
	maps.Copy(all, brokenWarmers())
	maps.Copy(all, brokenLosses())
	maps.Copy(all, brokenScratchers())
	maps.Copy(all, brokenCleaners())
	maps.Copy(all, brokenBatchers())
	for name, broken := range all {
		for _, rule := range broken.rules {
			t.Run(name+"/"+rule, func(t *testing.T) {
				t.Parallel() // it mostly waits
				r := ruleNamed(t, rule)
				catalog := memory.NewWith(memory.Config{Payload: 1000, Note: 1000})
				shared := new(defect)
				rec := record(t, r, func() driver.Store { return broken.wrap(catalog.Open(), shared) })
				require.True(t, rec.Failed(), "the rule holds on a store that breaks it")
				require.Contains(t, rec.text.String(), r.rule, "the sentence is printed")
			})
		}
	}
}

func TestEveryRuleOfSnapshotsHasAStoreThatBreaksIt(t *testing.T) {
	broken := make(map[string]bool)
	for _, b := range brokenCompactions() {
		for _, rule := range b.rules {
			broken[rule] = true
		}
	}
	for _, r := range snapshotRules() {
		require.True(t, broken[r.name], r.name)
	}
}

// defect is what the stores on one broken catalog share.
type defect struct {
	mu      sync.Mutex
	version int64
	heads   []driver.Head
	staged  map[stagedPart][]byte
	trimmed uint64
}

type stagedPart struct {
	id driver.ID
	n  int
}

type brokenStore struct {
	rules []string
	wrap  func(s *memory.Store, d *defect) driver.Store
}

// store is a store some of whose methods are replaced.
type store struct {
	*memory.Store
	head   func(context.Context) (driver.Head, error)
	append func(context.Context, driver.Head, driver.Record) error
	claim  func(context.Context) (driver.Claiming, error)
	log    func(context.Context, uint64, func(driver.Record) error) error
	claims func(context.Context, uint64, func(driver.Claim) error) error
	notes  func(context.Context, string) ([]driver.Note, error)
	post   func(context.Context, driver.Note) (int64, error)
	watch  func(context.Context, func()) error
	close  func() error

	snapshot func(context.Context, func(driver.Snapshot, []byte) error) error
	stage    func(context.Context, driver.Claim, driver.ID, int, []byte) error
	publish  func(context.Context, driver.Claim, driver.Snapshot) error
	trim     func(context.Context, driver.Claim) (bool, error)
}

func (s store) Snapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	if s.snapshot != nil {
		return s.snapshot(ctx, fn)
	}
	return s.Store.Snapshot(ctx, fn)
}

func (s store) Stage(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
	if s.stage != nil {
		return s.stage(ctx, by, id, n, part)
	}
	return s.Store.Stage(ctx, by, id, n, part)
}

func (s store) Publish(ctx context.Context, by driver.Claim, snapshot driver.Snapshot) error {
	if s.publish != nil {
		return s.publish(ctx, by, snapshot)
	}
	return s.Store.Publish(ctx, by, snapshot)
}

func (s store) Trim(ctx context.Context, by driver.Claim) (bool, error) {
	if s.trim != nil {
		return s.trim(ctx, by)
	}
	return s.Store.Trim(ctx, by)
}

func (s store) Head(ctx context.Context) (driver.Head, error) {
	if s.head != nil {
		return s.head(ctx)
	}
	return s.Store.Head(ctx)
}

func (s store) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	if s.append != nil {
		return s.append(ctx, prior, rec)
	}
	return s.Store.Append(ctx, prior, rec)
}

func (s store) Claim(ctx context.Context) (driver.Claiming, error) {
	if s.claim != nil {
		return s.claim(ctx)
	}
	return s.Store.Claim(ctx)
}

func (s store) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	if s.log != nil {
		return s.log(ctx, after, fn)
	}
	return s.Store.Log(ctx, after, fn)
}

func (s store) Claims(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
	if s.claims != nil {
		return s.claims(ctx, after, fn)
	}
	return s.Store.Claims(ctx, after, fn)
}

func (s store) Notes(ctx context.Context, prefix string) ([]driver.Note, error) {
	if s.notes != nil {
		return s.notes(ctx, prefix)
	}
	return s.Store.Notes(ctx, prefix)
}

func (s store) Post(ctx context.Context, n driver.Note) (int64, error) {
	if s.post != nil {
		return s.post(ctx, n)
	}
	return s.Store.Post(ctx, n)
}

func (s store) Watch(ctx context.Context, wake func()) error {
	if s.watch != nil {
		return s.watch(ctx, wake)
	}
	return s.Store.Watch(ctx, wake)
}

func (s store) Close() error {
	if s.close != nil {
		return s.close()
	}
	return s.Store.Close()
}

// claiming is a claim whose Install, Abandon or Log is replaced.
type claiming struct {
	driver.Claiming
	log     func(context.Context, uint64, func(driver.Record) error) error
	install func(context.Context, driver.Claim, driver.Record, ...driver.Note) error
	abandon func()
}

func (c claiming) Install(ctx context.Context, cl driver.Claim, rec driver.Record, when ...driver.Note) error {
	if c.install != nil {
		return c.install(ctx, cl, rec, when...)
	}
	return c.Claiming.Install(ctx, cl, rec, when...)
}

func (c claiming) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	if c.log != nil {
		return c.log(ctx, after, fn)
	}
	return c.Claiming.Log(ctx, after, fn)
}

func (c claiming) Abandon() {
	if c.abandon != nil {
		c.abandon()
		return
	}
	c.Claiming.Abandon()
}

// claimWith returns a Claim method whose claims are changed by change.
func claimWith(s *memory.Store, change func(driver.Claiming) driver.Claiming) func(context.Context) (driver.Claiming, error) {
	return func(ctx context.Context) (driver.Claiming, error) {
		c, err := s.Claim(ctx)
		if err != nil {
			return nil, err
		}
		return change(c), nil
	}
}

// errBare is an error that no driver classified.
var errBare = errors.New("bare")
