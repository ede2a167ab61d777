package leftovers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/reap"
)

// Config says what a pass may remove. The zero Config is usable.
type Config struct {
	// Catalog is how the store is read. Of it StoreTimeout and RetryBudget are used.
	Catalog catalog.Config

	// Policy is that of each kind, see package reap. Its InUse is asked in addition. Lock
	// is how the names of lock files begin: each kind has its own. For what dead processes
	// left Keep doesn't matter, and MinAge is driver.LeftLife at least.
	Policy reap.Policy

	// DryRun only reports what would be removed. It takes no lock.
	DryRun bool
}

// A Fate is what has become of an item.
type Fate string

const (
	Deleted  Fate = "deleted" // by this pass; with DryRun it would be
	Gone     Fate = "gone"    // before this pass came to it
	Kept     Fate = "kept"
	Failed   Fate = "failed"
	NotTried Fate = "not tried" // because the pass was stopped before
)

// An Item is one thing that was found.
type Item struct {
	Kind       Kind                  `json:"kind"`
	Name       string                `json:"name"`
	Generation generation.Generation `json:"generation"` // generation.None if it belongs to none
	At         time.Time             `json:"at"`         // when it was made; zero if that is not known
	Fate       Fate                  `json:"fate"`
	Why        string                `json:"why,omitempty"` // it was kept, or the removal failed
}

// A Report says what a pass found and did.
type Report struct {
	Store  string               `json:"store"`
	Token  fence.Token          `json:"token"` // the newest; zero if nobody has claimed yet
	DryRun bool                 `json:"dry_run"`
	Items  []Item               `json:"items"` // oldest first within each kind
	Passes map[Kind]reap.Report `json:"passes"`
}

// Count returns how many items have a fate.
func (r Report) Count(f Fate) (n int) {
	for _, i := range r.Items {
		if i.Fate == f {
			n++
		}
	}
	return n
}

// Err returns the errors of the removals that failed, or nil.
func (r Report) Err() error {
	var errs []error
	for _, k := range kinds() {
		for _, f := range r.Passes[k.name].Failures {
			errs = append(errs, fmt.Errorf("reap: %s %q: %w", k.name, f.Item.ID, f.Err))
		}
	}
	return errors.Join(errs...)
}

// Pass removes what is left beside the catalog in store, kind by kind. It reads the
// newest token itself, so that anybody may call it, with or without a token. A kind that
// can't be listed stops no other one. The report is valid whether or not there is an
// error; what could not be removed is in [Report.Err].
func Pass(ctx context.Context, store driver.Store, cfg Config) (Report, error) {
	store = catalog.Witnessed(store)
	r := Report{Store: store.String(), DryRun: cfg.DryRun, Items: []Item{}, Passes: map[Kind]reap.Report{}}
	head, err := catalog.ReadHead(ctx, store, cfg.Catalog)
	if err != nil {
		return r, err
	}
	r.Token = head.Claim.Token
	p := pass{store: store, board: catalog.NewBoard(store, cfg.Catalog), cfg: cfg, report: &r}
	var errs []error
	for _, k := range kinds() {
		if err := p.run(ctx, k); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", k.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return r, errors.Join(errs...)
}

// A pass is one under way.
type pass struct {
	store  driver.Store
	board  *catalog.Board
	cfg    Config
	report *Report
}

// found is what one kind's source has listed, and what became of it.
type found struct {
	entries []entry
	fates   map[string]Fate
}

// run makes the pass of one kind.
func (p pass) run(ctx context.Context, k kind) error {
	now, policy := p.report.Token, p.cfg.Policy
	if k.ofTheDead {
		now, policy = ofTheLiving(), patient(policy)
	}
	if now.IsZero() {
		return nil // nobody was superseded yet
	}
	f := found{fates: map[string]Fate{}}
	policy.InUse = p.inUse(k, &f, policy.InUse)
	if p.cfg.DryRun { // it has done nothing that others need not do again
		policy.Lock, policy.SkipIfLocked, policy.Every = "", false, 0
	}
	if policy.Lock != "" {
		policy.Lock += "-" + strings.ReplaceAll(string(k.name), " ", "-")
	}
	done, err := reap.Pass(ctx, p.source(k, &f), now, policy)
	p.report.Passes[k.name] = done
	p.report.Items = append(p.report.Items, f.items(k, done)...)
	return err
}

// What belongs to no generation is labelled as if it were of the one before that of its
// reaper: whether its process is dead is a question of age.
func ofTheDead() fence.Token   { return fence.Token{Generation: 1, Epoch: 1} }
func ofTheLiving() fence.Token { return fence.Token{Generation: 2, Epoch: 2} }

// patient returns the policy for what dead processes left.
func patient(p reap.Policy) reap.Policy {
	p.Keep, p.Led = reap.KeepNone, nil
	p.MinAge = max(p.MinAge, driver.LeftLife+time.Second)
	return p
}

func (p pass) source(k kind, f *found) reap.Source {
	return reap.Source{
		List: func(ctx context.Context) (items []reap.Item, err error) {
			entries, err := k.list(ctx, p)
			if err != nil {
				return nil, err
			}
			f.add(entries)
			for _, e := range entries {
				items = append(items, e.item(k))
			}
			return items, nil
		},
		Delete: func(ctx context.Context, item reap.Item) error {
			removed, err := true, error(nil)
			if !p.cfg.DryRun {
				removed, err = k.remove(ctx, p, f.entry(item.ID))
			}
			switch {
			case err != nil:
				f.fates[item.ID] = Failed
				return err
			case !removed:
				f.fates[item.ID] = Gone
				return reap.ErrGone
			}
			f.fates[item.ID] = Deleted
			return nil
		},
	}
}

// inUse returns the policy's InUse, which asks a note's version first.
func (p pass) inUse(k kind, f *found, also func(context.Context, reap.Item) (bool, error)) func(context.Context, reap.Item) (bool, error) {
	return func(ctx context.Context, item reap.Item) (used bool, err error) {
		if k.changed != nil {
			used, err = k.changed(ctx, p, f.entry(item.ID))
		}
		if err == nil && !used && also != nil {
			used, err = also(ctx, item)
		}
		return used, err
	}
}

// add notes what a listing has found. What an earlier one had found and this one has not
// is gone.
func (f *found) add(entries []entry) {
	listed := map[string]bool{}
	for _, e := range entries {
		listed[e.name()] = true
		if i := f.index(e.name()); i >= 0 {
			f.entries[i] = e
		} else {
			f.entries = append(f.entries, e)
		}
	}
	for _, e := range f.entries {
		if !listed[e.name()] && f.fates[e.name()] == "" {
			f.fates[e.name()] = Gone
		}
	}
}

func (f *found) index(name string) int {
	for i, e := range f.entries {
		if e.name() == name {
			return i
		}
	}
	return -1
}

func (f *found) entry(name string) entry { return f.entries[f.index(name)] }

// items says of everything that was found what has become of it.
func (f *found) items(k kind, done reap.Report) (items []Item) {
	why := map[string]string{}
	for _, failure := range done.Failures {
		why[failure.Item.ID] = failure.Err.Error()
		f.fates[failure.Item.ID] = Failed
	}
	for _, e := range f.entries {
		i := Item{Kind: k.name, Name: e.name(), Generation: e.note.Made.Generation, At: e.at(), Fate: f.fates[e.name()], Why: why[e.name()]}
		switch {
		case i.Fate != "":
		case done.Kept.Sum() > 0:
			i.Fate, i.Why = Kept, whyKept(done.Kept)
		default:
			i.Fate = NotTried
		}
		items = append(items, i)
	}
	return items
}

// whyKept names the reasons that there are. A kind of ours has one at a time.
func whyKept(k reap.Kept) string {
	for _, r := range []struct {
		n   int
		why string
	}{
		{k.Current, "of the generation that leads, or of a higher one"},
		{k.Generation, "of a generation that is kept for a rollback"},
		{k.Young, "too young"},
		{k.InUse, "it has changed, or is in use"},
		{k.Unlabelled, "it names no generation"},
		{k.Undated, "it has no time, and a minimum age is asked for"},
	} {
		if r.n > 0 {
			return r.why
		}
	}
	return ""
}
