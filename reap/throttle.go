package reap

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
)

// growth is by what each refused call multiplies the pause.
const growth = 1.2

// A ThrottleConfig says what the server allows. Its zero value is 4500 calls an hour.
type ThrottleConfig struct {
	// Limit is how many calls of all clients together the server allows in Window. It
	// need not be exact. Default: 4500 in 1 hour.
	Limit  int
	Window time.Duration

	// MaxPause bounds the pause that is learned. Default: 5 minutes, or Window if that
	// is shorter. With Limit and Window as they are by default, that suffices for 375
	// clients. A longer Retry-After is honoured whatever MaxPause is.
	MaxPause time.Duration

	// OnWait is told of each wait of Do before it begins, see [LogWaits]. A pass tells
	// its own. It may be nil.
	OnWait func(Wait)

	// Now is the clock that ends a Retry-After. Default: time.Now.
	Now func() time.Time

	// Jitter returns a random number in [0, 1). Default: math/rand/v2.
	Jitter func() float64
}

func (c ThrottleConfig) withDefaults() (ThrottleConfig, error) {
	if c.Limit < 0 || c.Window < 0 || c.MaxPause < 0 {
		return c, exitcodes.WithCode(fmt.Errorf("reap: throttle: Limit is %d, Window %v and MaxPause %v, want none below 0", c.Limit, c.Window, c.MaxPause), exitcodes.Config)
	}
	if c.Limit == 0 {
		c.Limit = 4500
	}
	if c.Window == 0 {
		c.Window = time.Hour
	}
	if c.MaxPause == 0 {
		c.MaxPause = min(5*time.Minute, c.Window)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
	return c, nil
}

// An Answer is what a server says about its limit when it answers one call.
type Answer struct {
	Limited    bool          // it refused the call because of too many
	Remaining  int           // calls that it still allows; below 0 if it does not say
	RetryAfter time.Duration // for how long it asks not to be called, whatever it answers, such as 503; 0 if it does not say
}

// A LimitedError means that a server refused a call because of too many, and did nothing.
type LimitedError struct {
	RetryAfter time.Duration // 0 if the server did not say
	Err        error         // what it said; may be nil
}

func (e *LimitedError) Error() string {
	return fmt.Sprintf("reap: too many requests, retry after %v: %v", e.RetryAfter, e.Err)
}

// Unwrap returns what the server said.
func (e *LimitedError) Unwrap() error { return e.Err }

// Disposition is retry.
func (e *LimitedError) Disposition() exitcodes.Disposition { return exitcodes.Retry }

// A Throttle learns how long to pause before each call, so that many clients who know
// nothing of each other share what a server allows. See the package's documentation for
// the rule. Its methods may be called concurrently; no lock is held during a wait.
type Throttle struct {
	cfg ThrottleConfig

	mu     sync.Mutex
	pause  time.Duration // before each call, without jitter
	closed time.Time     // until when the server asks not to be called
}

// NewThrottle returns a Throttle that does not pause until the server has refused a call.
func NewThrottle(cfg ThrottleConfig) (*Throttle, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Throttle{cfg: cfg}, nil
}

// Do makes a call, after a pause, and repeats it as long as the answer is that it was
// refused because of too many. It returns the error of the last call, or the cause of ctx.
func (t *Throttle) Do(ctx context.Context, call func(ctx context.Context) (Answer, error)) error {
	d, why := t.Pause()
	for {
		if err := t.wait(ctx, d, why); err != nil {
			return err
		}
		a, err := call(ctx)
		d, why = t.Learn(a)
		if !a.Limited {
			return err
		}
	}
}

func (t *Throttle) wait(ctx context.Context, d time.Duration, why WaitReason) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if d <= 0 {
		return nil
	}
	if t.cfg.OnWait != nil {
		t.cfg.OnWait(Wait{Reason: why, For: d, Limit: t.cfg.Limit, Detail: t.String()})
	}
	return sleep(ctx, d)
}

// String says what the throttle has learned.
func (t *Throttle) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("throttle of %d calls in %v, pause %.3g s", t.cfg.Limit, t.cfg.Window, t.pause.Seconds())
}

// Pause returns how long to wait before the next call, and why. Do does this itself.
func (t *Throttle) Pause() (time.Duration, WaitReason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.longer(t.pause, WaitPace)
}

// longer returns the wait with its jitter, or the rest of a Retry-After if that is longer.
func (t *Throttle) longer(d time.Duration, why WaitReason) (time.Duration, WaitReason) {
	if rest := t.closed.Sub(t.cfg.Now()); !t.closed.IsZero() && rest > d {
		d, why = rest, WaitRetryAfter
	}
	return saturate(float64(d) * (1 + t.cfg.Jitter()/10)), why
}

// Learn takes in the answer to a call. If the call was refused because of too many, it
// returns how long to wait before it is repeated, and why; otherwise 0. Do does this itself.
func (t *Throttle) Learn(a Answer) (time.Duration, WaitReason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := t.cfg.Now().Add(a.RetryAfter); a.RetryAfter > 0 && until.After(t.closed) {
		t.closed = until
	}
	if !a.Limited {
		t.pause -= t.decrease(a.Remaining)
		return 0, ""
	}
	wait := min(t.pause+t.least(), t.cfg.MaxPause)
	t.pause = min(saturate(float64(wait)*growth), t.cfg.MaxPause)
	return t.longer(wait, WaitLimited)
}

// least is the pause at which one client alone uses up what the server allows.
func (t *Throttle) least() time.Duration { return max(t.cfg.Window/time.Duration(t.cfg.Limit), 1) }

// decrease returns by how much a call that went through shortens the pause: in proportion
// to the pause, and to the remaining budget if the server says what it is.
func (t *Throttle) decrease(remaining int) time.Duration {
	part := float64(t.pause) / float64(t.cfg.Limit)
	if remaining >= 0 {
		part *= float64(min(remaining, t.cfg.Limit))
	}
	return time.Duration(part)
}

// saturate converts nanoseconds without wrapping around.
func saturate(ns float64) time.Duration {
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(ns)
}

// AnswerTo reads what a server says about its limit from the status and the header of its
// HTTP response: status 429, Retry-After in seconds or as a date, and RateLimit-Remaining
// or X-RateLimit-Remaining. What can't be read counts as not said.
func AnswerTo(status int, h http.Header, now time.Time) Answer {
	a := Answer{Limited: status == http.StatusTooManyRequests, Remaining: -1, RetryAfter: retryAfter(h.Get("Retry-After"), now)}
	for _, name := range []string{"RateLimit-Remaining", "X-RateLimit-Remaining"} {
		if n, err := strconv.Atoi(strings.TrimSpace(h.Get(name))); err == nil && n >= 0 {
			a.Remaining = n
			break
		}
	}
	return a
}

func retryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	seconds, err := strconv.ParseUint(text, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return math.MaxInt64
	}
	if err == nil {
		return saturate(float64(seconds) * float64(time.Second))
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
