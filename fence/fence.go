// Package fence decides whether a writer has lost the right to write.
//
// A [Token] is that right. Tokens are totally ordered, a store has exactly one
// at a time, and a writer whose token is lower than the store's is fenced: it
// is refused with an [Error], which says why. A token of a higher generation
// supersedes it, which is the planned end of an old release; a higher epoch of
// its own generation fences it only, which is a hand-over between equals.
//
// A [Gate] keeps the highest token that was seen where there is no transaction in
// which it could be checked: packages httpfence and grpcfence put it before a
// server. Everything else here holds no clock, no file and no goroutine: it
// compares values. Which process may raise a token is decided by package catalog;
// what a process does about an Error, by package exitcodes, which asks the error
// itself.
package fence

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
)

var (
	// ErrFenced means that a higher token exists, for whichever reason. It
	// does not heal: the holder must stop writing and end.
	ErrFenced = errors.New("fenced")

	// ErrSuperseded means that a higher generation holds the token. It is
	// narrower than ErrFenced. The process must end with status 0 and not be
	// started again.
	ErrSuperseded = errors.New("superseded")
)

// A Holder says who holds a token, for people. No decision reads it.
type Holder struct {
	Name    string    `json:"name"`    // such as a host or pod name; may be empty
	Address string    `json:"address"` // where others reach it, such as its clients; may be empty
	Build   string    `json:"build"`   // what was built, such as a commit; may be empty
	Since   time.Time `json:"since"`   // by the clock of the claimer, when it claimed
}

// String names the holder in one phrase.
func (h Holder) String() string {
	parts := []string{cmp.Or(h.Name, "an unnamed holder")}
	add := func(format string, v string) {
		if v != "" {
			parts = append(parts, fmt.Sprintf(format, v))
		}
	}
	add("at %s", h.Address)
	add("build %s", h.Build)
	if !h.Since.IsZero() {
		parts = append(parts, "since "+h.Since.UTC().Format(time.RFC3339))
	}
	return strings.Join(parts, ", ")
}

// An Error says that a process is fenced: which token it holds, which one the
// store bears, and who holds that. It matches [ErrFenced], and [ErrSuperseded]
// too if the current generation is the higher one.
//
// An Error that names a Guard is a hint: something else than the catalog's head
// refused the token. Only the head proves that a process is superseded, so a hint
// never matches ErrSuperseded, and its disposition is halt: the process restarts,
// or reads the head by catalog.Catalog.Explain.
type Error struct {
	Held    Token  // what this process carried; before its claim, epoch zero
	Current Token  // what the store bears; zero if a guard could not say it
	By      Holder // who holds Current
	Guard   string // what refused, such as "postgres catalog main"; empty for the head
}

// Check returns an *Error where current is above held, and nil otherwise.
func Check(held, current Token, by Holder) error {
	if held.Compare(current) >= 0 {
		return nil
	}
	return &Error{Held: held, Current: current, By: by}
}

// Superseded reports whether the fence is proven to be a newer generation's. It is
// false for a hint.
func (e *Error) Superseded() bool {
	return e.Guard == "" && e.Current.Generation > e.Held.Generation
}

// Generations returns the two that decide whether the process is superseded, and
// of a hint zeros. Package exitcodes asks for them before it ends a process with 0.
func (e *Error) Generations() (held, current uint64) {
	if e.Guard != "" {
		return 0, 0
	}
	return uint64(e.Held.Generation), uint64(e.Current.Generation)
}

func (e *Error) Error() string {
	if e.Guard != "" && e.Current.IsZero() {
		return fmt.Sprintf("refused by %s: it holds a newer token than the one that was given: stop writing; the head of the catalog says whether to end for good", e.Guard)
	}
	if e.Guard != "" {
		return fmt.Sprintf("refused by %s: held %v, the newest is %v of %v: stop writing; the head of the catalog says whether to end for good",
			e.Guard, e.Held, e.Current, e.By)
	}
	reason, advice := "fenced by epoch", "end, and start again as a standby"
	if e.Superseded() {
		reason, advice = "superseded", "end for good: a newer generation leads"
	}
	return fmt.Sprintf("%s: %s, the store has %v of %v: %s", reason, e.held(), e.Current, e.By, advice)
}

// held says which token the process held. Before its claim it held none.
func (e *Error) held() string {
	if e.Held.Epoch == 0 {
		return fmt.Sprintf("generation %v held no token", e.Held.Generation)
	}
	return "held " + e.Held.String()
}

// Is makes errors.Is find ErrFenced, and ErrSuperseded where it applies.
func (e *Error) Is(target error) bool {
	return target == ErrFenced || target == ErrSuperseded && e.Superseded()
}

// Disposition is graceful exit for a superseded process and halt for one that
// was fenced by epoch. See package exitcodes.
func (e *Error) Disposition() exitcodes.Disposition {
	if e.Superseded() {
		return exitcodes.GracefulExit
	}
	return exitcodes.Halt
}
