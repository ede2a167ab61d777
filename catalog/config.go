package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

// Config says who opens a catalog and how. The zero value of a field means its
// default.
type Config struct {
	// Generation is the release that this process belongs to. [Open] needs
	// one. A follower without one observes only: it is never superseded.
	Generation generation.Generation

	// Holder says who this process is, for people; Since is filled in by the
	// claim. Two builds, both named, must not share a generation.
	Holder fence.Holder

	// Migrations are the build's, oldest first. The last one's version is the
	// data version of the build.
	Migrations []Migration

	// StoreTimeout bounds one call of the store. Default 5 s.
	StoreTimeout time.Duration

	// ClaimTimeout bounds for how long a claim is tried, without the time that
	// migrations take. Default 15 s.
	ClaimTimeout time.Duration

	// MigrationTimeout bounds a run of the migrations while nobody can commit:
	// while the holder is paused, or under the claim. A run beside the holder's
	// commits may take as long as it needs. Default 1 min.
	MigrationTimeout time.Duration

	// RetryBudget is for how long one commit is tried again before its error
	// is returned. Default 30 s.
	RetryBudget time.Duration

	// AcceptLoss says that losses of acknowledged commits are accepted: a claim
	// passes over one that stands, and ends it in its own commit. The loss stays
	// in the history. Default: false, so that such a claim fails with
	// [ErrLossStands] until a person has looked.
	AcceptLoss bool

	// PollInterval is how often the head is read where no wake-up comes: the
	// bound on a follower's staleness and on how late a fence is noticed
	// without a write. Default 250 ms.
	PollInterval time.Duration

	// MaxQueued is how many Updates wait for the store at most; further ones
	// wait to be queued. Default 1024.
	MaxQueued int

	// CompactAfter is how much log is kept at least, in bytes, before a
	// snapshot takes its place; a holder makes one beside its commits once the
	// log is larger than this and than the entries. Default 1 MiB.
	CompactAfter int64

	// Logger receives what no caller is told, such as, once for each Open,
	// what could make the store lose a commit. Default: discard.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.StoreTimeout = cmp.Or(c.StoreTimeout, 5*time.Second)
	c.ClaimTimeout = cmp.Or(c.ClaimTimeout, 15*time.Second)
	c.MigrationTimeout = cmp.Or(c.MigrationTimeout, DefaultMigrationTimeout)
	c.RetryBudget = cmp.Or(c.RetryBudget, 30*time.Second)
	c.PollInterval = cmp.Or(c.PollInterval, 250*time.Millisecond)
	c.MaxQueued = cmp.Or(c.MaxQueued, 1024)
	c.CompactAfter = cmp.Or(c.CompactAfter, 1<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate names every mistake at once.
func (c Config) validate() error {
	var errs []error
	positive := func(name string, d time.Duration) {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("%s is %v, want more than 0", name, d))
		}
	}
	positive("StoreTimeout", c.StoreTimeout)
	positive("ClaimTimeout", c.ClaimTimeout)
	positive("MigrationTimeout", c.MigrationTimeout)
	positive("RetryBudget", c.RetryBudget)
	positive("PollInterval", c.PollInterval)
	if c.MaxQueued <= 0 {
		errs = append(errs, fmt.Errorf("MaxQueued is %d, want more than 0", c.MaxQueued))
	}
	if c.CompactAfter <= 0 {
		errs = append(errs, fmt.Errorf("CompactAfter is %d, want more than 0", c.CompactAfter))
	}
	if c.Generation > generation.Max {
		errs = append(errs, fmt.Errorf("%w: %d", generation.ErrOverflow, uint64(c.Generation)))
	}
	errs = append(errs, checkMigrations(c.Migrations))
	if err := errors.Join(errs...); err != nil {
		return exitcodes.WithCode(fmt.Errorf("catalog: configuration: %w", err), exitcodes.Config)
	}
	return nil
}

// ClaimOptions are conditions of one claim beyond those that every claim has. A
// claim whose condition does not hold is refused: see [ErrRefused].
type ClaimOptions struct {
	// IfClaim is the claim that must be the newest, such as the one whose
	// silence a standby has judged. Zero: the claim that the follower saw last,
	// or one of a lower generation that came since.
	IfClaim driver.ID

	// IfNeverClaimed makes the claim the first one ever, or none: it is refused
	// over any other.
	IfNeverClaimed bool

	// IfLower makes the claim one over a lower generation, or over none, whichever
	// the newest claim is: it is refused over one of this process's generation. Set
	// it, IfNeverClaimed or IfClaim, or none of them.
	IfLower bool

	// IfNotes are notes that must still be at their versions.
	IfNotes []driver.Note

	// Reason is kept in the history, for people.
	Reason string

	// Retrying, if not nil, is called after each failed try that is followed by another
	// one. It is also called every second while the store does not let a try begin,
	// for example because another session blocks it: that error wraps [ErrClaimWaits].
	// Calls never overlap, and must return at once.
	Retrying func(err error)
}

func (o ClaimOptions) validate() error {
	conditions := 0
	for _, set := range []bool{o.IfNeverClaimed, o.IfLower, !o.IfClaim.IsZero()} {
		if set {
			conditions++
		}
	}
	if conditions > 1 {
		return exitcodes.WithCode(errors.New("catalog: a claim takes one of IfClaim, IfNeverClaimed and IfLower: set one of them"), exitcodes.Config)
	}
	return nil
}
