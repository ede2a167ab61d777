package drivertest

import (
	"context"
	"fmt"
	"sync"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

func readCases() []protocolCase {
	return []protocolCase{
		{"every read tries again while the store fails in passing, and hands nothing out twice", readsTryAgain},
		{"a read that fails for good, or for longer than its bound, ends with the store's error", readsEnd},
	}
}

// stumbling fails each method that reads, in passing, as often as times says: at
// once, or once it has handed out something.
type stumbling struct {
	driver.Store
	mu    sync.Mutex
	times int
	after int // of the records, claims or parts that come before
	as    exitcodes.Disposition
	count map[string]int
}

// stumble returns an error if the method is to fail now.
func (s *stumbling) stumble(method string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count[method] >= s.times {
		return nil
	}
	s.count[method]++
	return &driver.Error{Class: driver.Class{Disposition: s.as}, Store: s.String(), Op: method, Err: errAnswerLost}
}

func (s *stumbling) Head(ctx context.Context) (driver.Head, error) {
	if err := s.stumble("head"); err != nil {
		return driver.Head{}, err
	}
	return s.Store.Head(ctx)
}

func (s *stumbling) Notes(ctx context.Context, prefix string) ([]driver.Note, error) {
	if err := s.stumble("notes"); err != nil {
		return nil, err
	}
	return s.Store.Notes(ctx, prefix)
}

// midway returns fn, which fails with the method once it was called often enough.
func midway[V any](s *stumbling, method string, fn func(V) error) func(V) error {
	n := 0
	return func(v V) error {
		if n == s.after {
			if err := s.stumble(method); err != nil {
				return err
			}
		}
		n++
		return fn(v)
	}
}

func (s *stumbling) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	return s.Store.Log(ctx, after, midway(s, "log", fn))
}

func (s *stumbling) Claims(ctx context.Context, after uint64, fn func(driver.Claim) error) error {
	return s.Store.Claims(ctx, after, midway(s, "claims", fn))
}

func (s *stumbling) Snapshot(ctx context.Context, fn func(driver.Snapshot, []byte) error) error {
	if err := s.stumble("snapshot"); err != nil {
		return err
	}
	return s.Store.Snapshot(ctx, fn)
}

func (s *stumbling) Probe(ctx context.Context) ([]driver.Finding, error) {
	if err := s.stumble("probe"); err != nil {
		return nil, err
	}
	prober, ok := driver.As[driver.Prober](s.Store)
	if !ok {
		return nil, nil
	}
	return prober.Probe(ctx)
}

// reads are the functions that read, each with how it is to be called. What one
// hands out goes to out.
func reads(s *scene) map[string]func(st driver.Store, cfg catalog.Config, out func(string)) error {
	ctx := Context(s)
	return map[string]func(st driver.Store, cfg catalog.Config, out func(string)) error{
		"ReadHead": func(st driver.Store, cfg catalog.Config, out func(string)) error {
			head, err := catalog.ReadHead(ctx, st, cfg)
			if err == nil {
				out(head.Commit.String())
			}
			return err
		},
		"ReadLog": func(st driver.Store, _ catalog.Config, out func(string)) error {
			return catalog.ReadLog(ctx, st, 0, func(c catalog.Commit) error { out(c.ID.String()); return nil })
		},
		"Compacted": func(st driver.Store, _ catalog.Config, out func(string)) error {
			_, err := catalog.Compacted(ctx, st)
			return err
		},
		"History": func(st driver.Store, _ catalog.Config, out func(string)) error {
			claims, err := catalog.History(ctx, st)
			for _, c := range claims {
				out(c.ID.String())
			}
			return err
		},
		"Snapshot": func(st driver.Store, cfg catalog.Config, out func(string)) error {
			return catalog.Snapshot(ctx, st, cfg, func(head driver.Head, r *catalog.Reader) error {
				return entries().Scan(r, "", func(key string, _ []byte) bool { out(key); return true })
			})
		},
		"ReadNotes": func(st driver.Store, cfg catalog.Config, out func(string)) error {
			notes, err := catalog.ReadNotes[map[string]any](ctx, catalog.NewBoard(st, cfg), "k")
			for _, n := range notes {
				out(n.Key)
			}
			return err
		},
		"LastProof": func(st driver.Store, cfg catalog.Config, out func(string)) error {
			_, _, err := catalog.LastProof(ctx, st, cfg)
			return err
		},
		"Follow": func(st driver.Store, cfg catalog.Config, out func(string)) error {
			cfg.ClaimTimeout = cfg.RetryBudget
			f, err := catalog.Follow(ctx, st, cfg)
			if err != nil {
				return err
			}
			out("followed")
			return f.Close()
		},
		"Preflight": func(st driver.Store, cfg catalog.Config, out func(string)) error {
			cfg.Generation = 2
			r := catalog.Preflight(ctx, st, cfg)
			for _, c := range r.Checks {
				if c.Grade == driver.Failure && r.Unreachable == nil {
					return fmt.Errorf("%s: %s", c.Name, c.Detail)
				}
			}
			return r.Unreachable
		},
	}
}

// readBy is what each of the reads asks the store for, at least.
var readBy = map[string][]string{
	"ReadHead": {"head"}, "ReadLog": {"log"}, "Compacted": {"snapshot"}, "History": {"claims"}, "Snapshot": {"head", "log"},
	"ReadNotes": {"notes"}, "LastProof": {"notes"}, "Follow": {"head", "log"}, "Preflight": {"head", "log", "claims"},
}

func readsTryAgain(s *scene) {
	st := s.store()
	for range 2 { // so that there are three claims
		require.NoError(s, s.claimsOver(st, config(1)).Close())
	}
	c := s.claimsOver(st, config(1))
	for _, key := range []string{"k1", "k2", "k3"} {
		s.put(c, key, "v")
	}
	_, err := st.Post(Context(s), driver.Note{Key: "k", Value: []byte("{}")})
	require.NoError(s, err)
	require.NoError(s, c.Close())
	for name, read := range reads(s) {
		for after := range 3 {
			var handed []string
			failing := &stumbling{Store: st, times: 2, after: after, as: exitcodes.Retry, count: map[string]int{}}
			require.NoError(s, read(failing, config(0), func(what string) { handed = append(handed, what) }), "%s, that fails behind %d", name, after)
			seen := map[string]bool{}
			for _, what := range handed {
				require.False(s, seen[what], "%s handed out %s twice", name, what)
				seen[what] = true
			}
			for _, method := range readBy[name] {
				require.Equal(s, failing.times, failing.count[method], "%s asked for %s, behind %d", name, method, after)
			}
		}
	}
}

func readsEnd(s *scene) {
	st := s.store()
	require.NoError(s, s.claimsOver(st, config(1)).Close())
	for name, read := range reads(s) {
		for as, budget := range map[exitcodes.Disposition]bool{exitcodes.Retry: true, exitcodes.Halt: false} {
			if budget && (name == "ReadLog" || name == "Compacted" || name == "History") {
				continue // their bound is a Config's default
			}
			cfg := config(0)
			cfg.RetryBudget = quiet
			failing := &stumbling{Store: st, times: 1 << 30, as: as, count: map[string]int{}}
			err := read(failing, cfg, func(string) {})
			require.Error(s, err, "%s, %v", name, as)
			require.ErrorContains(s, err, errAnswerLost.Error(), "%s, %v", name, as)
			require.NotContains(s, err.Error(), "written", "%s, %v", name, as)
		}
	}
}
