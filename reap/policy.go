package reap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

const (
	// KeepNone is the Policy.Keep of a pass that keeps no superseded generation.
	KeepNone = -1

	// NoMinAge is the Policy.MinAge of a pass that asks for no age.
	NoMinAge time.Duration = -1

	// NoTimeout is the Policy.CallTimeout of calls that may take for ever.
	NoTimeout time.Duration = -1
)

const defaultMaxWait = 15 * time.Minute

// A Policy says what a pass may delete and how it gets along with other reapers. The
// zero Policy keeps one superseded generation, deletes nothing younger than 10 minutes
// and yields to other reapers.
type Policy struct {
	// Keep is how many superseded generations keep their items, for a rollback.
	// Default: 1. [KeepNone] keeps none. The current generation and higher ones always
	// keep theirs.
	Keep int

	// Led are the generations that have led, in any order, as catalog.History lists
	// them. With it Keep counts these, so that generation 5 is kept under 8 if 6 and 7
	// never led. If it is nil, Keep counts numbers.
	Led []generation.Generation

	// MinAge is the least age of an item that is deleted. Default: 10 minutes.
	// [NoMinAge] asks for none.
	MinAge time.Duration

	// InUse reports whether live work still refers to an item. It is asked right before
	// each deletion. An error counts as a failure, and the item stays. It may be nil.
	InUse func(ctx context.Context, item Item) (bool, error)

	// OnConflict says what to do when another reaper is found at work. Default: [Yield].
	OnConflict Conflict

	// Limit is how many items there may be; [StopUnderLimit] requires it.
	Limit int

	// MaxConflicts is after how many conflicts a pass stops. Default: 10.
	MaxConflicts int

	// MaxFailures is after how many failures a pass stops. Default: 10.
	MaxFailures int

	// Backoff is how long a pass waits after each conflict. Default: 1 s, doubled each
	// time up to 60 s, of which a random half is taken off.
	Backoff Backoff

	// MaxWait bounds the sum of all waits of a pass; the next wait that would exceed it
	// stops the pass. Default: 15 minutes.
	MaxWait time.Duration

	// CallTimeout bounds each call of the source. Default: 5 minutes. [NoTimeout]
	// leaves that to ctx.
	CallTimeout time.Duration

	// Lock is the path of a lock file, see [HostLock]. With it at most one process of
	// this host is in the pass at a time, from the listing to the last deletion. The
	// lock is released during every wait. Passes that delete different things need locks
	// of their own. Default: no lock.
	Lock string

	// SkipIfLocked skips the pass, without a listing, if another process has the lock, or
	// pauses between two calls. It is for a pass at start-up. Otherwise a pass waits for the lock, and is skipped if
	// one that was allowed to delete all that this one is has begun and ended during the wait.
	SkipIfLocked bool

	// Every skips the pass, without a listing, if another one over the same Lock began less
	// than Every ago, was allowed to delete all that this one is, and came to its end without
	// a failure. It requires Lock. Default: 0, never.
	Every time.Duration

	// Throttle paces the calls of the source. Default: one of this pass, which waits
	// only after the server has refused a call.
	Throttle *Throttle

	// OnWait is told of each wait before it begins, see [LogWaits]. It may be nil.
	OnWait func(Wait)

	onStep func(Report) // called after each change of the report, by tests
}

// withDefaults returns the policy with its defaults, or an error that names every
// mistake.
func (p Policy) withDefaults(src Source, now fence.Token) (Policy, error) {
	if err := p.validate(src, now); err != nil {
		return p, exitcodes.WithCode(fmt.Errorf("%w: %w", ErrPolicy, err), exitcodes.Config)
	}
	p.Keep = whole(p.Keep, 1, KeepNone)
	p.MinAge = whole(p.MinAge, 10*time.Minute, NoMinAge)
	p.CallTimeout = whole(p.CallTimeout, 5*time.Minute, NoTimeout)
	p.MaxConflicts = whole(p.MaxConflicts, 10, 0)
	p.MaxFailures = whole(p.MaxFailures, 10, 0)
	p.MaxWait = whole(p.MaxWait, defaultMaxWait, 0)
	p.Backoff = p.Backoff.withDefaults()
	p.Led = slices.Clone(p.Led)
	if p.Throttle == nil {
		t, err := NewThrottle(ThrottleConfig{})
		if err != nil {
			return p, err
		}
		p.Throttle = t
	}
	return p, nil
}

// whole returns the default for 0, and 0 for the value that stands for none.
func whole[N int | time.Duration](n, byDefault, none N) N {
	switch n {
	case 0:
		return byDefault
	case none:
		return 0
	default:
		return n
	}
}

func (p Policy) validate(src Source, now fence.Token) error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(src.List != nil && src.Delete != nil, "the source lacks List or Delete: it needs both")
	need(now.Generation != generation.None, "the token is %v, which nobody ever held: give the one of the catalog", now)
	_, err := now.MarshalText()
	need(err == nil, "the token is none: %w", err)
	need(p.OnConflict >= Yield && p.OnConflict <= StopUnderLimit, "OnConflict is %d, want Yield, Refresh or StopUnderLimit", int(p.OnConflict))
	need(p.OnConflict != StopUnderLimit || p.Limit > 0, "Limit is %d, and StopUnderLimit needs one above 0", p.Limit)
	need(p.Limit >= 0, "Limit is %d, want 0 or more", p.Limit)
	need(p.Keep >= KeepNone, "Keep is %d, want KeepNone or a number of generations", p.Keep)
	need(p.MinAge >= 0 || p.MinAge == NoMinAge, "MinAge is %v, want NoMinAge or a duration above 0", p.MinAge)
	need(p.CallTimeout >= 0 || p.CallTimeout == NoTimeout, "CallTimeout is %v, want NoTimeout or a duration above 0", p.CallTimeout)
	need(p.MaxConflicts >= 0 && p.MaxFailures >= 0, "MaxConflicts is %d and MaxFailures %d, want neither below 0", p.MaxConflicts, p.MaxFailures)
	need(p.MaxWait >= 0 && p.Every >= 0, "MaxWait is %v and Every %v, want neither below 0", p.MaxWait, p.Every)
	need(p.Lock != "" || !p.SkipIfLocked && p.Every == 0, "SkipIfLocked and Every need Lock, the path of a lock file")
	return errors.Join(append(errs, p.Backoff.validate())...)
}

// spares returns the lowest generation whose items are kept under a token of now.
func (p Policy) spares(now generation.Generation) generation.Generation {
	if p.Led == nil {
		return now - min(now, generation.Generation(p.Keep))
	}
	led := slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(p.Led))), func(g generation.Generation) bool { return g >= now })
	switch {
	case p.Keep == 0:
		return now
	case p.Keep > len(led):
		return generation.None
	default:
		return led[len(led)-p.Keep]
	}
}

// LogWaits returns an OnWait that logs each wait as a warning.
func LogWaits(log *slog.Logger) func(Wait) {
	return func(w Wait) {
		log.Warn("reap: waiting", "reason", string(w.Reason), "seconds", w.For.Seconds(), "count", w.Count, "limit", w.Limit,
			"strategy", w.Strategy.String(), "detail", w.Detail)
	}
}
