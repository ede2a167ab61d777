package work

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A Kind says what one kind of jobs does, and how its jobs are treated. The zero
// value of a field means its default.
type Kind struct {
	// Name is stored with every job: 1 to [MaxName] bytes. A kind that was renamed
	// is another kind.
	Name string

	// Run does one job. It is called again if it fails, if the process dies, and
	// if the process loses its token, so it must tolerate effects of an earlier
	// run; a successor may run the job while a stopped process still does. Its
	// context ends, with the reason as its cause, if the token is lost, the
	// process is to stop, Timeout is over or the job was abandoned. A run that
	// returns nil has done the job. A run that panics has failed.
	Run func(ctx context.Context, j *Job) error

	// Order says which jobs of one key may run at a time. Default: [Any].
	Order Order

	// Pin says which generations may run a job. Default: [AnyGeneration].
	Pin Pin

	// Stranded says what becomes of a pinned job whose generation or member is
	// gone. Default: [Keep].
	Stranded Stranding

	// MaxAttempts is the number of runs after which a job that fails, or whose
	// process crashes, goes to the dead list. Runs that a deploy or a requested
	// stop interrupted don't count. Default 25. Negative: there is no limit.
	MaxAttempts int

	// Retry returns the wait behind the given number of failed attempts, from 1
	// on. Default: [DefaultRetry].
	Retry func(attempts int) time.Duration

	// Timeout bounds one run. Default: there is none.
	Timeout time.Duration

	// Concurrency is how many jobs of the kind run at a time, within
	// Config.Concurrency. Default: that.
	Concurrency int

	// MaxPayload is the size of the largest payload that Enqueue accepts, in
	// bytes. Default 64 KiB, at most 1 MiB.
	MaxPayload int

	// MaxQueued is how many jobs of the kind wait or run at most; Enqueue refuses
	// further ones. Default 1,000,000.
	MaxQueued int

	// Stale is the age, since a job was first due, from which a job that does not
	// run raises an alarm. Default 15 min. Negative: it never does.
	Stale time.Duration

	// Slow is how long a job may run before it raises an alarm. Default: as long
	// as it likes.
	Slow time.Duration
}

// Order says which jobs of one key may run at a time.
type Order uint8

const (
	// Any ignores keys.
	Any Order = iota
	// Each runs the jobs of a key one by one, in the order of their IDs. One that
	// waits for its retry or for its time holds up those behind it.
	Each
	// Latest coalesces: one run of a key's newest due job does all of that key's
	// older due jobs too. What is enqueued during a run is run afterwards, so the
	// newest state is never lost. It is for jobs that make something outside equal
	// to something inside.
	Latest
)

// String returns "any", "each" or "latest".
func (o Order) String() string { return [...]string{"any", "each", "latest"}[min(o, Latest)] }

// Pin says which generations may run a job.
type Pin uint8

const (
	// AnyGeneration lets every generation run a job.
	AnyGeneration Pin = iota
	// SameGeneration lets only the generation that enqueued the job run it. Under
	// a later one the job is stranded.
	SameGeneration
)

// String returns "any" or "same".
func (p Pin) String() string { return [...]string{"any", "same"}[min(p, SameGeneration)] }

// Stranding says what becomes of a job that is pinned to a generation or member
// that is gone.
type Stranding uint8

const (
	// Keep keeps the job until a person reassigns or abandons it. It raises an
	// alarm.
	Keep Stranding = iota
	// TakeOver has the holder run it. The job then says from whom it was taken.
	TakeOver
)

// Limits of what is stored.
const (
	MaxName     = 128     // bytes of a kind's name
	MaxKey      = 512     // bytes of a job's key
	MaxPayload  = 1 << 20 // bytes of the largest payload of any kind
	MaxProgress = 64 << 10
	maxError    = 4 << 10 // bytes of an error's text that are kept
)

const (
	defaultAttempts = 25
	defaultPayload  = 64 << 10
	defaultQueued   = 1_000_000
	defaultStale    = 15 * time.Minute
)

// DefaultRetry waits 1 s behind the first failed attempt, twice as long behind
// each further one, at most 10 min, and less by up to a half at random.
func DefaultRetry(attempts int) time.Duration {
	wait := 10 * time.Minute
	if attempts < 10 {
		wait = time.Second << max(attempts-1, 0)
	}
	return wait - rand.N(wait/2)
}

// wait returns the wait behind failed attempts; the default, and the reason, if Retry
// panics.
func (k Kind) wait(attempts int) (wait time.Duration, err error) {
	wait = DefaultRetry(attempts)
	defer contain(&err)
	return max(0, k.Retry(attempts)), nil
}

func (k Kind) withDefaults(concurrency int) Kind {
	if k.MaxAttempts == 0 {
		k.MaxAttempts = defaultAttempts
	}
	if k.Retry == nil {
		k.Retry = DefaultRetry
	}
	if k.Concurrency == 0 {
		k.Concurrency = concurrency
	}
	if k.MaxPayload == 0 {
		k.MaxPayload = defaultPayload
	}
	if k.MaxQueued == 0 {
		k.MaxQueued = defaultQueued
	}
	if k.Stale == 0 {
		k.Stale = defaultStale
	}
	return k
}

// check returns every mistake of a kind.
func (k Kind) check() error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf("work: kind %q: "+format, append([]any{clip(k.Name, 64)}, args...)...))
		}
	}
	wrong(checkName(k.Name) != nil, "a name has 1 to %d bytes of printable UTF-8", MaxName)
	wrong(k.Run == nil, "Run is missing")
	wrong(k.Order > Latest, "Order is %d, want Any, Each or Latest", k.Order)
	wrong(k.Pin > SameGeneration, "Pin is %d, want AnyGeneration or SameGeneration", k.Pin)
	wrong(k.Stranded > TakeOver, "Stranded is %d, want Keep or TakeOver", k.Stranded)
	wrong(k.Timeout < 0, "Timeout is %v, want 0 or more", k.Timeout)
	wrong(k.Concurrency < 0, "Concurrency is %d, want 0 or more", k.Concurrency)
	wrong(k.MaxPayload < 0 || k.MaxPayload > MaxPayload, "MaxPayload is %d, want 0 to %d", k.MaxPayload, MaxPayload)
	wrong(k.MaxQueued < 0, "MaxQueued is %d, want 0 or more", k.MaxQueued)
	wrong(k.Slow < 0, "Slow is %v, want 0 or more", k.Slow)
	return errors.Join(errs...)
}
