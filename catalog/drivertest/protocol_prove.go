package drivertest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

func proveCases() []protocolCase {
	return []protocolCase{
		{"the first claim, and Prove at any time, show that the store refuses, and leave one note", proven},
		{"a store that lets two writers win is not claimed, and ends with 78", twoWin},
		{"an answer that is lost in a check of the store is no win, and the check begins again", lostInACheck},
		{"a check of the store in which every write is sent twice passes", twiceInACheck},
		{"a check that can't be finished claims nothing, and ends with 75", checkUnfinished},
		{"checks at the same time do not disturb each other", checksTogether},
	}
}

// scratching is a store whose scratch places are what scratch makes of them.
type scratching struct {
	driver.Store
	scratch func(ctx context.Context) (driver.Scratch, error)
}

func (s scratching) Scratch(ctx context.Context) (driver.Scratch, error) { return s.scratch(ctx) }

// scratched returns a store in whose scratch places each store is changed by
// change; ok is false if the driver has none.
func (s *scene) scratched(change func(driver.Store) driver.Store) (_ scratching, ok bool) {
	st := s.store()
	scratcher, ok := driver.As[driver.Scratcher](st)
	if !ok {
		s.Log("the store is no driver.Scratcher, and can't be checked")
	}
	return scratching{st, func(ctx context.Context) (driver.Scratch, error) {
		scratch, err := scratcher.Scratch(ctx)
		for i := range scratch.Stores {
			scratch.Stores[i] = change(scratch.Stores[i])
		}
		return scratch, err
	}}, ok
}

func proven(s *scene) {
	st := s.store()
	if _, ok := driver.As[driver.Scratcher](st); !ok {
		return
	}
	_, made, err := catalog.LastProof(Context(s), st, config(1))
	require.NoError(s, err)
	require.False(s, made)
	cfg := config(1)
	cfg.Holder.Build = "b1"
	c := s.claimsOver(st, cfg)
	first, made, err := catalog.LastProof(Context(s), st, cfg)
	require.NoError(s, err)
	require.True(s, made)
	require.True(s, first.Passed)
	require.Equal(s, "b1", first.Build)
	require.NotEmpty(s, first.Tried)
	require.Positive(s, first.Took)
	require.EqualValues(s, 1, c.Head().Revision, "the check is not in the log")
	s.put(c, "k", "v")
	head := ReadHead(s, st)
	now, err := catalog.Prove(Context(s), s.store(), cfg) // while another process holds the token
	require.NoError(s, err)
	last, _, err := catalog.LastProof(Context(s), st, cfg)
	require.NoError(s, err)
	require.True(s, now.At.Equal(last.At))
	require.True(s, last.At.After(first.At))
	SameHead(s, head, ReadHead(s, st))
	require.Len(s, ReadNotes(s, st, ""), 1)
	s.put(c, "l", "v")
}

// twoWinners are stores that let two writers win, each in a way of its own.
func twoWinners() map[string]func(driver.Store) driver.Store {
	landing, telling := make(chan struct{}), make(chan struct{})
	return map[string]func(driver.Store) driver.Store{
		"the condition of a commit always holds":          func(s driver.Store) driver.Store { return &hooked{Store: s, onAppend: appendAny(s)} },
		"whoever loses with a commit is told that it won": func(s driver.Store) driver.Store { return &hooked{Store: s, onAppend: appendTold(s)} },
		"two claims are under way, and both land":         func(s driver.Store) driver.Store { return unlocked{s, landing} },
		"whoever loses with a claim is told that it won":  func(s driver.Store) driver.Store { return unlocked{told{s}, telling} },
		"a reader is one commit behind":                   func(s driver.Store) driver.Store { return lagging(s) },
		"a note that was there is replaced by one that needs none": func(s driver.Store) driver.Store {
			return &hooked{Store: s, onPost: postAny(s)}
		},
		"a note that was there is replaced by one that was to replace an older one": func(s driver.Store) driver.Store {
			post := postAny(s)
			return &hooked{Store: s, onPost: func(ctx context.Context, n driver.Note) (int64, error) {
				if n.Version == 0 {
					return s.Post(ctx, n)
				}
				return post(ctx, n)
			}}
		},
		"of several notes over one, all are told that they won": func(s driver.Store) driver.Store {
			return &hooked{Store: s, onPost: func(ctx context.Context, n driver.Note) (int64, error) {
				version, err := s.Post(ctx, n)
				if n.Version != 0 && errors.Is(err, driver.ErrConflict) {
					return n.Version + 1, nil
				}
				return version, err
			}}
		},
		"a claim does not look at its notes": func(s driver.Store) driver.Store {
			return &hooked{Store: s, onInstall: func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, _ []driver.Note) error {
				return cl.Install(ctx, c, rec)
			}}
		},
		"a commit that lands while a claim is under way does not refuse the claim": func(s driver.Store) driver.Store { return overCommits{s} },
		"a commit that was acknowledged is nowhere": func(s driver.Store) driver.Store {
			return &hooked{Store: s, onAppend: func(context.Context, driver.Head, driver.Record) error { return nil }}
		},
	}
}

func appendAny(s driver.Store) func(context.Context, driver.Head, driver.Record) error {
	return func(ctx context.Context, _ driver.Head, rec driver.Record) error {
		for {
			head, err := s.Head(ctx)
			if err != nil {
				return err
			}
			rec.Revision = head.Revision + 1
			if err := s.Append(ctx, head, rec); !errors.Is(err, driver.ErrConflict) {
				return err
			}
		}
	}
}

func appendTold(s driver.Store) func(context.Context, driver.Head, driver.Record) error {
	return func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		err := s.Append(ctx, prior, rec)
		if errors.Is(err, driver.ErrConflict) {
			return nil
		}
		return err
	}
}

// appendLosing acknowledges commits that were refused, if wins says so of the head
// that they name and the newest one.
func appendLosing(s driver.Store, wins func(prior, head driver.Head) bool) func(context.Context, driver.Head, driver.Record) error {
	return func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		err := s.Append(ctx, prior, rec)
		head, failed := s.Head(ctx)
		if failed == nil && wins(prior, head) {
			return nil
		}
		return err
	}
}

func postAny(s driver.Store) func(context.Context, driver.Note) (int64, error) {
	return func(ctx context.Context, n driver.Note) (int64, error) {
		for {
			now, err := s.Notes(ctx, n.Key)
			if err != nil {
				return 0, err
			}
			if n.Version = 0; len(now) > 0 {
				n.Version = now[0].Version
			}
			if version, err := s.Post(ctx, n); !errors.Is(err, driver.ErrConflict) {
				return version, err
			}
		}
	}
}

// unlocked is a store whose claims exclude nobody: each begins for real when it
// installs, over whatever is there. Of the first claims two begin together, however
// busy the machine is.
type unlocked struct {
	driver.Store
	pairs chan struct{}
}

func (u unlocked) Claim(ctx context.Context) (driver.Claiming, error) {
	head, err := u.Store.Head(ctx)
	if err != nil {
		return nil, err
	}
	if head.IsZero() {
		select {
		case u.pairs <- struct{}{}:
		case <-u.pairs:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &unlockedClaiming{store: u.Store, head: head}, nil
}

type unlockedClaiming struct {
	driver.Claiming
	store driver.Store
	head  driver.Head
}

func (c *unlockedClaiming) Head() driver.Head { return c.head }
func (c *unlockedClaiming) Abandon()          {}

func (c *unlockedClaiming) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	real, err := c.store.Claim(ctx)
	if err != nil {
		return err
	}
	defer real.Abandon()
	now := real.Head()
	claim.Revision, rec.Revision = now.Revision+1, now.Revision+1
	claim.PriorClaim, claim.PriorCommit = now.Claim.ID, now.Commit
	if claim.Token, err = now.Claim.Token.Next(claim.Token.Generation); err != nil {
		return err
	}
	rec.Token = claim.Token
	return real.Install(ctx, claim, rec, when...)
}

// overCommits is a store whose claims exclude each other and no commits: each has
// read the head before the newest commit, and lands behind that nevertheless.
type overCommits struct{ driver.Store }

func (o overCommits) Claim(ctx context.Context) (driver.Claiming, error) {
	head, err := o.Store.Head(ctx)
	if err != nil || head.Commit == head.Claim.ID {
		return o.Store.Claim(ctx)
	}
	err = o.Store.Log(ctx, head.Revision-2, func(rec driver.Record) error {
		head.Revision, head.Commit = rec.Revision, rec.ID
		return errRead
	})
	if !errors.Is(err, errRead) {
		return nil, err
	}
	return &unlockedClaiming{store: o.Store, head: head}, nil
}

// told is a store whose claims are acknowledged though only the first lands.
type told struct{ driver.Store }

func (t told) Claim(ctx context.Context) (driver.Claiming, error) {
	c, err := t.Store.Claim(ctx)
	if err != nil || c.Head().IsZero() {
		return c, err
	}
	return toldClaiming{c}, nil
}

type toldClaiming struct{ driver.Claiming }

func (c toldClaiming) Install(context.Context, driver.Claim, driver.Record, ...driver.Note) error {
	c.Abandon()
	return nil
}

// lagging returns a store whose second and later reads of the head show the one
// before.
func lagging(s driver.Store) driver.Store {
	var mu sync.Mutex
	var last driver.Head
	return &hooked{Store: s, onHead: func(ctx context.Context) (driver.Head, error) {
		head, err := s.Head(ctx)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			head, last = last, head
		}
		return head, err
	}}
}

func twoWin(s *scene) {
	for name, change := range twoWinners() {
		at := s.anew()
		st, ok := at.scratched(change)
		if !ok {
			return
		}
		err := at.isNotClaimed(st, name)
		if name == "the condition of a commit always holds" {
			require.ErrorContains(s, err, "rest on the same head", "which two writes")
			require.ErrorContains(s, err, "one should have been refused, and both were acknowledged", "what was expected, and what came")
		}
		at.end()
	}
	for name, change := range map[string]func(driver.Store) driver.Store{
		"one of the ways is one commit behind": lagging,
		"one of the ways acknowledges commits under a fenced token": func(s driver.Store) driver.Store {
			return &hooked{Store: s, onAppend: appendLosing(s, func(prior, head driver.Head) bool { return prior.Claim.ID != head.Claim.ID })}
		},
		"one of the ways compares the claim alone": func(s driver.Store) driver.Store {
			return &hooked{Store: s, onAppend: appendLosing(s, func(prior, head driver.Head) bool { return prior.Claim.ID == head.Claim.ID })}
		},
	} {
		at, n := s.anew(), 0
		st, _ := at.scratched(func(s driver.Store) driver.Store {
			if n++; n%2 == 0 {
				return change(s)
			}
			return s
		})
		_ = at.isNotClaimed(st, name)
		at.end()
	}
	at := s.anew()
	if st, ok := at.forks(); ok {
		_ = at.isNotClaimed(st, "each way leads to a store of its own, as to a clone")
		at.end()
	}
}

// forks returns a store whose scratch places are two, of which each store has
// one.
func (s *scene) forks() (driver.Store, bool) {
	st, ok := s.scratched(func(s driver.Store) driver.Store { return s })
	once := st.scratch
	st.scratch = func(ctx context.Context) (driver.Scratch, error) {
		one, err := once(ctx)
		if err != nil {
			return one, err
		}
		two, err := once(ctx)
		return driver.Scratch{Stores: []driver.Store{one.Stores[0], two.Stores[0]}, Discard: func(ctx context.Context) error {
			return errors.Join(one.Discard(ctx), two.Discard(ctx))
		}}, err
	}
	return st, ok
}

func (s *scene) isNotClaimed(st driver.Store, name string) (refusal error) {
	s.Helper()
	_, err := catalog.Open(Context(s), st, config(1))
	require.ErrorIs(s, err, driver.ErrTwoWon, name)
	require.Equal(s, exitcodes.Config, exitcodes.CodeOf(err), name)
	require.ErrorContains(s, err, "fencepost store check", name)
	require.True(s, ReadHead(s, st).IsZero(), name)
	last, made, rerr := catalog.LastProof(Context(s), st, config(1))
	require.NoError(s, rerr)
	require.True(s, made, name)
	require.False(s, last.Passed, name)
	require.Equal(s, err.Error(), last.Failure, name)
	_, again := catalog.Prove(Context(s), st, config(1))
	require.ErrorIs(s, again, driver.ErrTwoWon, name)
	require.Equal(s, exitcodes.Config, exitcodes.CodeOf(again), name)
	return err
}

// lostInACheck loses the answer to each kind of write once, whether it lands or
// not.
func lostInACheck(s *scene) {
	for _, lands := range []bool{true, false} {
		var appends, installs, posts atomic.Int64
		at := s.anew()
		st, ok := at.scratched(func(s driver.Store) driver.Store {
			return &hooked{Store: s,
				onAppend: func(ctx context.Context, prior driver.Head, rec driver.Record) error {
					if appends.Add(1) != 2 {
						return s.Append(ctx, prior, rec)
					}
					if lands {
						_ = s.Append(ctx, prior, rec) // the answer is lost
					}
					return lost(s, "append")
				},
				onInstall: func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
					if installs.Add(1) != 1 {
						return cl.Install(ctx, c, rec, when...)
					}
					if lands {
						_ = cl.Install(ctx, c, rec, when...) // the answer is lost
					}
					return lost(s, "install")
				},
				onPost: func(ctx context.Context, n driver.Note) (int64, error) {
					if posts.Add(1) != 1 {
						return s.Post(ctx, n)
					}
					if lands {
						_, _ = s.Post(ctx, n) // the answer is lost
					}
					return 0, lost(s, "post")
				},
			}
		})
		if !ok {
			return
		}
		cfg := config(1)
		cfg.ClaimTimeout = 3 * Patience // for three checks in vain
		c := at.claimsOver(st, cfg)
		require.Greater(s, appends.Load(), int64(2))
		require.Greater(s, installs.Load(), int64(1))
		require.Greater(s, posts.Load(), int64(1))
		last, _, err := catalog.LastProof(Context(s), st, config(1))
		require.NoError(s, err)
		require.True(s, last.Passed)
		require.NoError(s, c.Close())
		at.end()
	}
}

// twiceInACheck sends every commit, claim and note twice, and answers what the
// second copy is answered: refused, which says of the first one nothing if its
// outcome is unknown.
func twiceInACheck(s *scene) {
	for _, outcome := range []driver.Outcome{driver.NotApplied, driver.Unknown} {
		refused := func(store driver.Store, op string, err error) error {
			if err == nil || errors.Is(err, driver.ErrConflict) {
				return &driver.Error{Class: driver.Class{Outcome: outcome}, Store: store.String(), Op: op, Err: driver.ErrConflict}
			}
			return err
		}
		at := s.anew()
		st, ok := at.scratched(func(s driver.Store) driver.Store {
			return &hooked{Store: s,
				onAppend: func(ctx context.Context, prior driver.Head, rec driver.Record) error {
					return refused(s, "append", s.Append(ctx, prior, rec))
				},
				onInstall: func(ctx context.Context, cl driver.Claiming, c driver.Claim, rec driver.Record, when []driver.Note) error {
					return refused(s, "install", cl.Install(ctx, c, rec, when...))
				},
				onPost: func(ctx context.Context, n driver.Note) (int64, error) {
					_, err := s.Post(ctx, n)
					return 0, refused(s, "post", err)
				},
			}
		})
		if !ok {
			return
		}
		found, err := catalog.Prove(Context(s), st, config(1))
		require.NoError(s, err)
		require.True(s, found.Passed)
		require.NoError(s, at.claimsOver(st, config(1)).Close())
		at.end()
	}
}

func checkUnfinished(s *scene) {
	fails := func(s driver.Store) driver.Store {
		return &hooked{Store: s, onAppend: func(context.Context, driver.Head, driver.Record) error { return lost(s, "append") }}
	}
	st, ok := s.scratched(fails)
	if !ok {
		return
	}
	cfg := config(1)
	cfg.ClaimTimeout, cfg.RetryBudget = quiet, quiet
	_, err := catalog.Open(Context(s), st, cfg)
	require.NotErrorIs(s, err, driver.ErrTwoWon)
	require.Equal(s, exitcodes.TempFail, exitcodes.CodeOf(err))
	require.Equal(s, driver.NotApplied, catalog.OutcomeOf(err), "the claim was never sent")
	require.True(s, ReadHead(s, st).IsZero())
	_, err = catalog.Prove(Context(s), st, cfg)
	require.Equal(s, exitcodes.TempFail, exitcodes.CodeOf(err))
	_, made, err := catalog.LastProof(Context(s), st, cfg)
	require.NoError(s, err)
	require.False(s, made, "a check that was not finished is none")
}

func checksTogether(s *scene) {
	var all []<-chan error
	for range 3 {
		st := s.store()
		if _, ok := driver.As[driver.Scratcher](st); !ok {
			return
		}
		all = append(all, async(func() error {
			_, err := catalog.Prove(Context(s), st, config(1))
			return err
		}))
	}
	for _, done := range all {
		require.NoError(s, <-done)
	}
}
