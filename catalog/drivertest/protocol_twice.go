package drivertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// A client that retries, a proxy or an interceptor can send a write twice. The
// first copy lands, and the answer that arrives is any: that of the second copy,
// most often ErrConflict. An id that was sent is mine, whatever was answered.
func twiceCases() []protocolCase {
	return []protocolCase{
		{"commits that are sent twice are acknowledged, and applied exactly once, whatever is answered", commitsTwice},
		{"a claim that is sent twice is not fenced by itself, whatever is answered", claimTwice},
		{"nor is one that rests on notes, which its own process changes right behind it", claimOnNotesTwice},
		{"a token that is raised twice over is raised once", raiseTwice},
		{"a conflict whose head can't be read is unknown, and never not applied", conflictWithoutHead},
		{"a claim that was refused and whose head can't be read has an unknown outcome", claimWithoutHead},
		{"a commit that landed before the claim that refused its second copy is acknowledged", fencedTwice},
		{"a commit that landed though the store had refused it is no lost commit", landedThoughRefused},
		{"compactions whose writes are sent twice lose nothing", compactedTwice},
		{"numbers and notes that are sent twice: no number is given out twice, and a removal succeeds", boardTwice},
		{"a copy of a commit that arrives after later ones changes nothing", lateCopies},
		{"confirming beside a commit that is sent twice finds no loss", confirmBeside},
	}
}

// answers are what arrives after both copies of a write, of which the first
// gave one and the second two.
func answers(st driver.Store, op string) map[string]func(one, two error) error {
	refusal := func(d exitcodes.Disposition) func(error, error) error {
		return func(error, error) error {
			return &driver.Error{Class: driver.Class{Disposition: d}, Store: st.String(), Op: op, Err: errors.New("refused")}
		}
	}
	return map[string]func(one, two error) error{
		"the first":                   func(one, _ error) error { return one },
		"the second":                  func(_, two error) error { return two },
		"none":                        func(error, error) error { return lost(st, op) },
		"a refusal":                   refusal(exitcodes.None),
		"a refusal that passes":       refusal(exitcodes.Retry),
		"a conflict without a reason": func(error, error) error { return conflictOf(st, op) },
		"a conflict beside a copy without answer": func(error, error) error {
			return &driver.Error{Class: driver.Class{Outcome: driver.Unknown}, Store: st.String(), Op: op,
				Err: fmt.Errorf("%w: says one copy of two", driver.ErrConflict)}
		},
	}
}

func conflictOf(st driver.Store, op string) error {
	return &driver.Error{Store: st.String(), Op: op, Err: fmt.Errorf("%w: says the second copy", driver.ErrConflict)}
}

// sendsTwice makes a store that sends each Append twice where the answer is to
// be another one, and passes the rest.
func sendsTwice(st driver.Store, answer func(one, two error) error, when func(n int64) bool) *hooked {
	var n atomic.Int64
	h := &hooked{Store: st}
	h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		one := st.Append(ctx, prior, rec)
		if one != nil || !when(n.Add(1)) {
			return one
		}
		return answer(one, st.Append(ctx, prior, rec))
	}
	return h
}

func commitsTwice(s *scene) {
	for name, answer := range answers(s.store(), "append") {
		s.anotherTime(name, func(s *scene) {
			st := s.store()
			c := s.claimsOver(sendsTwice(st, answer, func(n int64) bool { return n%3 == 1 }), config(1))
			load := &load{scene: s, acked: map[string]bool{}}
			load.start(c)
			before := c.Head().Revision
			require.Eventually(s, func() bool { return c.Head().Revision > before+9 }, Patience, time.Millisecond)
			require.NoError(s, c.Confirm(Context(s)))
			require.NoError(s, c.Close())
			load.wg.Wait()
			s.lostNothing(load.acked)
			for key, n := range s.commits() {
				require.Equal(s, 1, n, key)
			}
		})
	}
}

// lateCopies sends a copy of every commit once two later ones were acknowledged.
// Each must be refused.
func lateCopies(s *scene) {
	type copied struct {
		prior driver.Head
		rec   driver.Record
	}
	st, server := s.store(), s.store()
	var sent []copied
	h := &hooked{Store: st}
	h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		err := st.Append(ctx, prior, rec)
		if sent = append(sent, copied{prior, rec}); len(sent) > 2 {
			late := sent[len(sent)-3]
			lerr := server.Append(ctx, late.prior, late.rec)
			require.ErrorIs(s, lerr, driver.ErrConflict)
			require.Equal(s, driver.NotApplied, driver.OutcomeOf(lerr))
		}
		return err
	}
	c := s.claimsOver(h, config(1))
	for i := range 9 {
		s.put(c, "key", fmt.Sprint(i))
	}
	require.NoError(s, c.Confirm(Context(s)))
	require.NoError(s, c.Close())
	require.Len(s, sent, 9)
	var want []driver.Record
	for _, copied := range sent {
		want = append(want, copied.rec)
	}
	SameLog(s, want, ReadLog(s, st, c.Claim().Revision))
}

// anotherTime plays a case once more, on another empty catalog.
func (s *scene) anotherTime(name string, test func(*scene)) {
	next := s.anew()
	defer next.end()
	s.Log(name)
	test(next)
}

// claimsTwice makes a store whose first Install lands and is answered so.
func claimsTwice(st driver.Store, answer func(one, two error) error) *hooked {
	var struck atomic.Bool
	h := &hooked{Store: st}
	h.onInstall = func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
		err := cl.Install(ctx, c, rec, when...)
		if err != nil || !struck.CompareAndSwap(false, true) {
			return err
		}
		return answer(nil, conflictOf(st, "install"))
	}
	return h
}

func claimTwice(s *scene) {
	for name, answer := range answers(s.store(), "install") {
		s.anotherTime(name, func(s *scene) {
			cfg := config(1)
			cfg.Migrations = steps(1, nil)
			st := s.store()
			c := s.claimsOver(claimsTwice(st, answer), cfg)
			require.Equal(s, "g1.e1", c.Token().String())
			require.Len(s, ReadClaims(s, st, 0), 1)
			require.Equal(s, "1", s.contents(c)["steps"])
			s.put(c, "k", "v")
			again := s.claimsOver(claimsTwice(s.store(), answer), cfg)
			require.Equal(s, "g1.e2", again.Token().String())
			require.Equal(s, "1", s.contents(again)["steps"])
			s.put(again, "l", "v")
		})
	}
}

func claimOnNotesTwice(s *scene) {
	st := s.store()
	version, err := st.Post(Context(s), driver.Note{Key: "intent", Value: []byte("{}")})
	require.NoError(s, err)
	var landed, looks atomic.Int64
	h := claimsTwice(st, func(_, two error) error {
		_, err := st.Post(Context(s), driver.Note{Key: "intent", Value: []byte(`{"done":true}`), Version: version})
		s.check(err)
		landed.Store(1)
		return two
	})
	h.onHead = func(ctx context.Context) (driver.Head, error) {
		if landed.Load() > 0 && looks.Add(1) == 2 { // the first one shows its own claim
			return driver.Head{}, &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Store: st.String(), Op: "head", Err: errors.New("not there")}
		}
		return st.Head(ctx)
	}
	f, err := catalog.Follow(Context(s), h, config(1))
	require.NoError(s, err)
	c, err := f.Open(Context(s), catalog.ClaimOptions{IfNotes: []driver.Note{{Key: "intent", Version: version}}})
	require.NoError(s, err, "its own claim is in the head")
	require.Len(s, ReadClaims(s, st, 0), 1)
	s.put(c, "k", "v")
	require.NoError(s, c.Close())
}

func raiseTwice(s *scene) {
	require.NoError(s, s.claims(1).Close())
	st := s.store()
	claim, err := catalog.Raise(Context(s), claimsTwice(st, func(_, two error) error { return two }), config(0), catalog.RaiseOptions{Reason: "test"})
	require.NoError(s, err)
	require.Equal(s, "g1.e2", claim.Token.String())
	require.Len(s, ReadClaims(s, st, 0), 2)
}

// conflictWithoutHead takes the head away as soon as the second copy conflicts.
func conflictWithoutHead(s *scene) {
	st := s.store()
	var gone atomic.Bool
	h := sendsTwice(st, func(_, two error) error { gone.Store(true); return two }, func(int64) bool { return true })
	h.onHead = func(ctx context.Context) (driver.Head, error) {
		if gone.Load() {
			return driver.Head{}, &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Store: st.String(), Op: "head", Err: errors.New("not there")}
		}
		return st.Head(ctx)
	}
	cfg := slowly(config(1))
	cfg.RetryBudget = 100 * time.Millisecond
	c := s.claimsOver(deaf(h), cfg)
	err := put(Context(s), c, "k", "v")
	require.ErrorIs(s, err, catalog.ErrUnknownOutcome)
	require.Equal(s, exitcodes.Retry, exitcodes.Of(err))
	s.awaitDone(c.Done())
	require.Equal(s, 1, s.commits()["k"])
}

// claimWithoutHead takes the head away as soon as the second copy conflicts,
// and changes the note that the claim rests on.
func claimWithoutHead(s *scene) {
	for _, when := range [][]driver.Note{nil, {{Key: "intent"}}} {
		st := s.store()
		var gone atomic.Bool
		h := claimsTwice(st, func(_, two error) error {
			if when != nil {
				_, err := st.Post(Context(s), driver.Note{Key: "intent", Value: []byte("{}")})
				s.check(err)
			}
			gone.Store(true)
			return two
		})
		h.onHead = func(ctx context.Context) (driver.Head, error) {
			if gone.Load() {
				return driver.Head{}, &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Store: st.String(), Op: "head", Err: errors.New("not there")}
			}
			return st.Head(ctx)
		}
		cfg := config(1)
		cfg.ClaimTimeout = time.Second
		f, err := catalog.Follow(Context(s), h, cfg)
		require.NoError(s, err)
		_, err = f.Open(Context(s), catalog.ClaimOptions{IfNotes: when})
		require.ErrorIs(s, err, catalog.ErrUnknownOutcome)
		require.NotErrorIs(s, err, catalog.ErrRefused)
		require.Equal(s, exitcodes.Retry, exitcodes.Of(err))
	}
	require.Len(s, ReadClaims(s, s.store(), 0), 2)
}

// fencedTwice has another process claim between the two copies.
func fencedTwice(s *scene) {
	st := s.store()
	var next *catalog.Catalog
	h := &hooked{Store: st}
	h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		if err := st.Append(ctx, prior, rec); err != nil {
			return err
		}
		next = s.claims(2)
		return st.Append(ctx, prior, rec)
	}
	first := s.claimsOver(deaf(h), slowly(config(1)))
	require.NoError(s, put(Context(s), first, "k", "v"), "the claim was built on it")
	require.Equal(s, map[string]string{"k": "v"}, s.contents(next))
	require.Equal(s, 1, s.commits()["k"])
	err := first.Close()
	s.supersededBy("g2.e2", err)
	require.NotErrorIs(s, err, catalog.ErrLostCommit)
}

func landedThoughRefused(s *scene) {
	st := s.store()
	var late func() error
	h := &hooked{Store: st}
	h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		if late == nil {
			late = func() error { return st.Append(context.WithoutCancel(ctx), prior, rec) }
			return &driver.Error{Store: st.String(), Op: "append", Err: errors.New("refused")}
		}
		return st.Append(ctx, prior, rec)
	}
	c := s.claimsOver(deaf(h), slowly(config(1)))
	require.Error(s, put(Context(s), c, "k", "v"))
	require.NoError(s, late())
	require.NoError(s, c.Confirm(Context(s)), "an id that was sent is mine")
	err := put(Context(s), c, "l", "v")
	require.NotErrorIs(s, err, catalog.ErrLostCommit)
	require.Equal(s, exitcodes.Halt, exitcodes.Of(err))
	require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err))
	again := s.claims(1)
	require.Equal(s, map[string]string{"k": "v"}, s.contents(again))
	require.NotErrorIs(s, c.Close(), catalog.ErrLostCommit)
}

func compactedTwice(s *scene) {
	st := s.store()
	var failed atomic.Pointer[error]
	twice := func(write func() error) error {
		one, two := write(), write()
		if one == nil && two != nil {
			failed.CompareAndSwap(nil, &two)
		}
		return two
	}
	h := sendsTwice(st, func(_, two error) error { return two }, func(int64) bool { return true })
	h.onStage = func(ctx context.Context, by driver.Claim, id driver.ID, n int, part []byte) error {
		return twice(func() error { return st.Stage(ctx, by, id, n, part) })
	}
	h.onPublish = func(ctx context.Context, by driver.Claim, snapshot driver.Snapshot) error {
		return twice(func() error { return st.Publish(ctx, by, snapshot) })
	}
	h.onTrim = func(ctx context.Context, by driver.Claim) (more bool, err error) {
		return more, twice(func() (err error) { more, err = st.Trim(ctx, by); return err })
	}
	cfg := config(1)
	cfg.CompactAfter = 1
	c := s.claimsOver(h, cfg)
	n := 0
	require.Eventually(s, func() bool {
		n++
		s.put(c, fmt.Sprint(n), "v")
		snapshot, err := catalog.Compacted(Context(s), st)
		require.NoError(s, err)
		return !snapshot.IsZero()
	}, Patience, time.Millisecond)
	s.put(c, "last", "v")
	require.NoError(s, c.Close())
	require.Nil(s, failed.Load(), "a second copy was refused")
	again := s.claims(1)
	require.Len(s, s.contents(again), n+1)
}

func boardTwice(s *scene) {
	st := s.store()
	for name, answer := range answers(st, "post") {
		if name == "a refusal" { // it ends the call: what the store says of a write counts
			continue
		}
		h := &hooked{Store: st}
		var n atomic.Int64
		h.onPost = func(ctx context.Context, note driver.Note) (int64, error) {
			version, one := st.Post(ctx, note)
			if one != nil || name != "the second" && n.Add(1)%2 == 0 {
				return version, one
			}
			_, two := st.Post(ctx, note)
			return version, answer(one, two)
		}
		board := catalog.NewBoard(h, config(1))
		given, mu, wg := map[string]bool{}, sync.Mutex{}, sync.WaitGroup{}
		for range 2 {
			other := catalog.NewBoard(h, config(1)) // of another process
			wg.Go(func() {
				for range 5 {
					g, err := other.NextGeneration(Context(s))
					s.check(err)
					mu.Lock()
					if given[g.String()] {
						s.Errorf("%s: generation %v was given out twice", name, g)
					}
					given[g.String()] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		type note map[string]int
		for i := range 3 {
			p, err := catalog.UpdateNote(Context(s), board, "note", func(v *note) error { *v = note{"n": i}; return nil })
			require.NoError(s, err, name)
			require.Equal(s, note{"n": i}, p.Value)
			read, err := catalog.ReadNote[note](Context(s), board, "note")
			require.NoError(s, err, name)
			require.Equal(s, p.Value, read.Value, "it bears something that no caller has written")
			n.Store(0)
			require.NoError(s, catalog.RemoveNote(Context(s), board, p), name)
			require.Empty(s, ReadNotes(s, st, "note"))
		}
	}
}

func confirmBeside(s *scene) {
	c := s.claimsOver(sendsTwice(s.store(), func(_, two error) error { return two }, func(int64) bool { return true }), config(1))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.check(c.Confirm(Context(s)))
				}
			}
		})
	}
	for i := range 30 {
		if err := put(Context(s), c, fmt.Sprint(i), "v"); err != nil {
			s.Errorf("unexpected: %v", err)
			break
		}
	}
	close(stop)
	wg.Wait()
	require.NoError(s, c.Close())
	require.False(s, errors.Is(c.Err(), fence.ErrFenced) || errors.Is(c.Err(), catalog.ErrLostCommit))
}
