package work

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Thresholds are the limits of [Check]. Zero means the default, a negative duration or
// number that the condition never fires.
type Thresholds struct {
	// Stale, Slow and Blocked are by kind. Of a kind that has none, Kind.Stale and
	// Kind.Slow decide, and Blocked is as long as Stale.
	Stale, Slow, Blocked Limits

	Unknown  time.Duration // default 15 min
	Stranded time.Duration // default 15 min
	Orphans  time.Duration // how long no Queue runs under the newest token; default 1 min
	Silent   time.Duration // how long the holder gives no sign of life; default 1 min
	Inbox    time.Duration // default 1 min
	Dead     int           // how many jobs of a kind may be on the dead list; default 0
}

// Limits are durations by the names of kinds; that of "" is for every kind that is not
// named. Negative: never.
type Limits map[string]time.Duration

// of returns the limit of a kind: the one that is set for it or for all, or else the
// kind's own, or else the default.
func (l Limits) of(kind string, own, otherwise time.Duration) time.Duration {
	if d := l[kind]; d != 0 {
		return d
	}
	if d := l[""]; d != 0 {
		return d
	}
	if own != 0 {
		return own
	}
	return otherwise
}

const (
	never          = time.Duration(-1)
	defaultUnclaim = 15 * time.Minute
	defaultSilent  = time.Minute
)

func (t Thresholds) withDefaults() Thresholds {
	for _, d := range []struct {
		is        *time.Duration
		otherwise time.Duration
	}{{&t.Unknown, defaultUnclaim}, {&t.Stranded, defaultUnclaim}, {&t.Orphans, defaultSilent}, {&t.Silent, defaultSilent}, {&t.Inbox, defaultSilent}} {
		if *d.is == 0 {
			*d.is = d.otherwise
		}
	}
	return t
}

// The variables of [ThresholdsFrom].
const (
	StaleEnv    = "FENCEPOST_WORK_STALE"    // such as 20m, or 20m,sync=5m,dump=off
	SlowEnv     = "FENCEPOST_WORK_SLOW"     // likewise
	BlockedEnv  = "FENCEPOST_WORK_BLOCKED"  // likewise
	UnknownEnv  = "FENCEPOST_WORK_UNKNOWN"  // such as 15m
	StrandedEnv = "FENCEPOST_WORK_STRANDED" // likewise
	OrphansEnv  = "FENCEPOST_WORK_ORPHANS"  // likewise
	SilentEnv   = "FENCEPOST_WORK_SILENT"   // likewise
	InboxEnv    = "FENCEPOST_WORK_INBOX"    // likewise
	DeadEnv     = "FENCEPOST_WORK_DEAD"     // a number
)

// ThresholdsFrom reads thresholds from the environment. A variable that is empty or not
// set leaves the default. A duration is one of Go's above zero, or off. Those that are by
// kind take KIND=DURATION too, separated by commas or, if a name has a comma, one a line.
// The error names every mistake, in every variable.
func ThresholdsFrom(getenv func(string) string) (Thresholds, error) {
	var t Thresholds
	var errs []error
	for name, into := range map[string]*Limits{StaleEnv: &t.Stale, SlowEnv: &t.Slow, BlockedEnv: &t.Blocked} {
		limits, err := parseLimits(name, getenv(name))
		*into = limits
		errs = append(errs, err)
	}
	for name, into := range map[string]*time.Duration{
		UnknownEnv: &t.Unknown, StrandedEnv: &t.Stranded, OrphansEnv: &t.Orphans, SilentEnv: &t.Silent, InboxEnv: &t.Inbox,
	} {
		if text := strings.TrimSpace(getenv(name)); text != "" {
			d, err := parseLimit(name, text)
			*into = d
			errs = append(errs, err)
		}
	}
	if text := strings.TrimSpace(getenv(DeadEnv)); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		switch {
		case text == off:
			n = -1
		case err != nil || n < 0:
			errs = append(errs, fmt.Errorf("%s: %q is no limit: want a number from 0, or off", DeadEnv, clip(text, 64)))
		}
		t.Dead = int(n)
	}
	return t, joinSorted(errs)
}

// joinSorted joins errors in an order that does not change.
func joinSorted(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	slices.SortFunc(errs, func(x, y error) int { return cmp.Compare(x.Error(), y.Error()) })
	return errors.Join(errs...)
}

// off is the limit of what never fires.
const off = "off"

// parseLimits reads DURATION and KIND=DURATION, of each at most one.
func parseLimits(variable, text string) (Limits, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	separator := ","
	if strings.Contains(strings.TrimSpace(text), "\n") {
		separator = "\n"
	}
	limits, errs := Limits{}, []error{}
	for part := range strings.SplitSeq(text, separator) {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		kind, value := "", part
		if at := strings.LastIndex(part, "="); at >= 0 {
			kind, value = strings.TrimSpace(part[:at]), strings.TrimSpace(part[at+1:])
			if checkName(kind) != nil {
				errs = append(errs, fmt.Errorf("%s: %q names no kind", variable, clip(part, 64)))
				continue
			}
		}
		d, err := parseLimit(variable, value)
		if _, twice := limits[kind]; twice && err == nil {
			err = fmt.Errorf("%s: there are two limits for %q", variable, clip(kind, 64))
		}
		limits[kind] = d
		errs = append(errs, err)
	}
	return limits, errors.Join(errs...)
}

// parseLimit reads a duration above zero, or off.
func parseLimit(variable, text string) (time.Duration, error) {
	if text == off {
		return never, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s: %q is no limit: want a duration above zero such as 15m, or off", variable, clip(text, 64))
	}
	return d, nil
}
