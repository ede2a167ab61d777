package drivertest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// RunProtocol checks that package catalog keeps its promises over a driver.
// newCatalog is as in [RunStore].
func RunProtocol(t *testing.T, newCatalog func(t *testing.T) (open func(t *testing.T) driver.Store), options ...Option) {
	for _, c := range chosen(t, protocolCases(), func(c protocolCase) string { return c.name }, options) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test((&scene{T: t, newCatalog: newCatalog}).anew())
		})
	}
}

// A protocolCase is one sentence about the protocol. Its name is the sentence.
type protocolCase struct {
	name string
	test func(s *scene)
}

func protocolCases() []protocolCase {
	return slices.Concat(openCases(), aloneCases(), fenceCases(), raceCases(), lostAnswerCases(), doubtfulClaimCases(), twiceCases(), lostCommitCases(), lossCases(), versionCases(),
		batchCases(), followCases(), rehearseCases(), migrateCases(), feedCases(), compactCases(), boardCases(), raiseCases(), proveCases(), readCases())
}

// A scene is what one case works with: a catalog that was empty.
type scene struct {
	*testing.T
	newCatalog func(*testing.T) func(*testing.T) driver.Store
	open       func() driver.Store
	stores     []driver.Store
}

// anew turns to another empty catalog.
func (s *scene) anew() *scene {
	open := s.newCatalog(s.T)
	return &scene{T: s.T, newCatalog: s.newCatalog, open: func() driver.Store { return open(s.T) }}
}

// store opens the catalog's store as one more process would.
func (s *scene) store() driver.Store {
	st := s.open()
	s.stores = append(s.stores, st)
	return st
}

// end closes every store before the test's end: a server takes only so many
// connections.
func (s *scene) end() {
	for _, st := range s.stores {
		s.check(st.Close())
	}
}

// config is that of a process of generation g.
func config(g generation.Generation) catalog.Config {
	return catalog.Config{
		Generation:   g,
		Holder:       fence.Holder{Name: fmt.Sprintf("process of %v", g), Address: "127.0.0.1:1"},
		ClaimTimeout: Patience,
		RetryBudget:  Patience,
		PollInterval: 50 * time.Millisecond,
	}
}

// claims opens the catalog for generation g as a process of its own.
func (s *scene) claims(g generation.Generation) *catalog.Catalog {
	s.Helper()
	return s.claimsOver(s.store(), config(g))
}

func (s *scene) claimsOver(st driver.Store, cfg catalog.Config) *catalog.Catalog {
	s.Helper()
	c, err := catalog.Open(Context(s), st, cfg)
	require.NoError(s, err)
	s.Cleanup(func() { _ = c.Close() }) // its reason is asserted where it matters
	return c
}

// follows opens a follower of generation g; zero is an observer.
func (s *scene) follows(g generation.Generation) *catalog.Follower {
	s.Helper()
	f, err := catalog.Follow(Context(s), s.store(), config(g))
	require.NoError(s, err)
	s.Cleanup(func() { _ = f.Close() }) // its reason is asserted where it matters
	return f
}

// entries is the collection that the cases write to.
func entries() catalog.Collection[[]byte] { return catalog.Bytes("entries") }

// put commits one entry.
func put(ctx context.Context, c *catalog.Catalog, key, value string) error {
	return c.Update(ctx, func(tx *catalog.Tx) error { return entries().Set(tx, key, []byte(value)) })
}

func (s *scene) put(c *catalog.Catalog, key, value string) {
	s.Helper()
	require.NoError(s, put(Context(s), c, key, value))
}

// viewer is what entries are read from: a handle or a follower.
type viewer interface {
	View(fn func(*catalog.Reader) error) error
}

// contents returns every entry.
func (s *scene) contents(v viewer) map[string]string {
	s.Helper()
	all := map[string]string{}
	require.NoError(s, v.View(func(r *catalog.Reader) error {
		return entries().Scan(r, "", func(key string, value []byte) bool {
			all[key] = string(value)
			return true
		})
	}))
	return all
}

// commits returns how often each key was written, as the log has it, and
// checks what must hold of every log: tokens never fall.
func (s *scene) commits() map[string]int {
	s.Helper()
	count := map[string]int{}
	var highest fence.Token
	require.NoError(s, catalog.ReadLog(Context(s), s.store(), 0, func(c catalog.Commit) error {
		require.GreaterOrEqual(s, c.Token.Compare(highest), 0, "revision %d is of %v, behind %v", c.Revision, c.Token, highest)
		highest = c.Token
		for _, ch := range c.Changes {
			count[ch.Key]++
		}
		return nil
	}))
	return count
}

func (s *scene) token(text string) fence.Token {
	s.Helper()
	t, err := fence.Parse(text)
	require.NoError(s, err)
	return t
}

// fencedBy asserts that err says fenced by epoch, by the token current.
func (s *scene) fencedBy(current string, err error) {
	s.Helper()
	require.ErrorIs(s, err, fence.ErrFenced)
	require.NotErrorIs(s, err, fence.ErrSuperseded)
	s.byToken(current, err)
}

// supersededBy asserts that err says superseded, by the token current.
func (s *scene) supersededBy(current string, err error) {
	s.Helper()
	require.ErrorIs(s, err, fence.ErrSuperseded)
	s.byToken(current, err)
}

func (s *scene) byToken(current string, err error) {
	s.Helper()
	var f *fence.Error
	require.ErrorAs(s, err, &f)
	require.Equal(s, current, f.Current.String())
	require.NotEmpty(s, f.By.Name, "the fence does not say who")
}

// awaitDone waits until a handle or follower has ended, without asking it.
func (s *scene) awaitDone(done <-chan struct{}) {
	s.Helper()
	select {
	case <-done:
	case <-time.After(Patience):
		require.FailNow(s, "it has not ended in time")
	}
}

// A hooked store passes every call on, or to a hook in its place.
type hooked struct {
	driver.Store
	onHead    func(ctx context.Context) (driver.Head, error)
	onAppend  func(ctx context.Context, prior driver.Head, rec driver.Record) error
	onInstall func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error
	onPost    func(ctx context.Context, n driver.Note) (int64, error)

	onLog      func(ctx context.Context, after uint64, fn func(driver.Record) error) error
	onSnapshot func(ctx context.Context, fn func(driver.Snapshot, []byte) error) error
	onStage    func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error
	onPublish  func(ctx context.Context, by driver.Claim, s driver.Snapshot) error
	onTrim     func(ctx context.Context, by driver.Claim) (bool, error)

	onPutLosses func(ctx context.Context, l driver.Losses, at *driver.Head) (int64, error)
}

func (h *hooked) PutLosses(ctx context.Context, l driver.Losses, at *driver.Head) (int64, error) {
	if h.onPutLosses != nil {
		return h.onPutLosses(ctx, l, at)
	}
	return h.Store.PutLosses(ctx, l, at)
}

func (h *hooked) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	if h.onLog != nil {
		return h.onLog(ctx, after, fn)
	}
	return h.Store.Log(ctx, after, fn)
}

func (h *hooked) Snapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	if h.onSnapshot != nil {
		return h.onSnapshot(ctx, fn)
	}
	return h.Store.Snapshot(ctx, fn)
}

func (h *hooked) Stage(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
	if h.onStage != nil {
		return h.onStage(ctx, by, id, n, part)
	}
	return h.Store.Stage(ctx, by, id, n, part)
}

func (h *hooked) Publish(ctx context.Context, by driver.Claim, s driver.Snapshot) error {
	if h.onPublish != nil {
		return h.onPublish(ctx, by, s)
	}
	return h.Store.Publish(ctx, by, s)
}

func (h *hooked) Trim(ctx context.Context, by driver.Claim) (bool, error) {
	if h.onTrim != nil {
		return h.onTrim(ctx, by)
	}
	return h.Store.Trim(ctx, by)
}

func (h *hooked) Head(ctx context.Context) (driver.Head, error) {
	if h.onHead != nil {
		return h.onHead(ctx)
	}
	return h.Store.Head(ctx)
}

func (h *hooked) Append(ctx context.Context, prior driver.Head, rec driver.Record) error {
	if h.onAppend != nil {
		return h.onAppend(ctx, prior, rec)
	}
	return h.Store.Append(ctx, prior, rec)
}

func (h *hooked) Post(ctx context.Context, n driver.Note) (int64, error) {
	if h.onPost != nil {
		return h.onPost(ctx, n)
	}
	return h.Store.Post(ctx, n)
}

func (h *hooked) Claim(ctx context.Context) (driver.Claiming, error) {
	cl, err := h.Store.Claim(ctx)
	if err != nil || h.onInstall == nil {
		return cl, err
	}
	return &hookedClaiming{Claiming: cl, store: h}, nil
}

type hookedClaiming struct {
	driver.Claiming
	store *hooked
}

func (h *hookedClaiming) Install(ctx context.Context, c driver.Claim, rec driver.Record, when ...driver.Note) error {
	return h.store.onInstall(ctx, h.Claiming, c, rec, when)
}

// lost is the error of a write whose answer did not arrive.
func lost(s driver.Store, op string) error {
	return &driver.Error{
		Class: driver.Class{Disposition: retryDisposition, Outcome: driver.Unknown},
		Store: s.String(), Op: op, Err: errAnswerLost,
	}
}
