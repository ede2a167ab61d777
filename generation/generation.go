// Package generation numbers the releases of a service.
//
// A deployer gives each release of a service one [Generation], higher than all
// before it, and never uses a number twice, not even one of a deploy that was
// cancelled. A process gets the number of its release when it is started, from
// a flag or from the environment, and keeps it until it ends; see [Resolve].
//
// The package does not decide which release may write: package fence orders
// generations and epochs together.
package generation

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/fencepost/fencepost/exitcodes"
)

// A Generation is the ordinal of one release. The zero Generation, [None], is
// no release: only a process that never writes may go without a number.
//
// Its text form is decimal, its JSON form a number and its SQL form a bigint.
type Generation uint64

const (
	// None stands for a process that belongs to no release.
	None Generation = 0

	// Max is the last generation. It is the largest number that every store
	// can hold: SQL's bigint has a sign.
	Max Generation = math.MaxInt64

	// Room is how many numbers [Generation.CheckRoom] wants above a generation.
	Room = 1 << 32

	// EnvVar names the environment variable that [Resolve] reads.
	EnvVar = "FENCEPOST_GENERATION"
)

var (
	// ErrOverflow means that a number is above [Max]. It does not heal.
	ErrOverflow = errors.New("generation: above the largest generation")

	// ErrNoRoom means that a number leaves too few above it for the releases that
	// are to follow.
	ErrNoRoom = errors.New("generation: too few numbers are left above it")

	// ErrMissing means that a process that wants to write was given no
	// generation. Whoever starts the process must give it one.
	ErrMissing = errors.New("generation: none given")

	// ErrMalformed means that a text is not a generation.
	ErrMalformed = errors.New("generation: not a generation")
)

// Next returns the generation that follows g, or [ErrOverflow] where there is
// none.
func (g Generation) Next() (Generation, error) {
	if g >= Max {
		return g, fmt.Errorf("%w: %d has no successor, the largest is %d", ErrOverflow, uint64(g), uint64(Max))
	}
	return g + 1, nil
}

// CheckRoom returns an error that wraps [ErrNoRoom] if fewer than [Room] numbers
// are above g. It is for numbers that are chosen freely: a number is never taken
// back, so that a typing error near [Max] would leave none for later releases.
func (g Generation) CheckRoom() error {
	if g > Max-Room {
		return fmt.Errorf("%w: %d, want at most %d, so that %d further releases can follow", ErrNoRoom, uint64(g), uint64(Max-Room), uint64(Room))
	}
	return nil
}

// String returns g in decimal.
func (g Generation) String() string { return strconv.FormatUint(uint64(g), 10) }

// UnmarshalJSON reads a number from 0 to [Max]. Above Max it returns an error
// that wraps [ErrOverflow]. As in every JSON decoding, null changes nothing.
func (g *Generation) UnmarshalJSON(text []byte) error {
	n := uint64(*g)
	err := json.Unmarshal(text, &n)
	if _, perr := strconv.ParseUint(string(text), 10, 64); errors.Is(perr, strconv.ErrRange) || n > uint64(Max) {
		return fmt.Errorf("%w: %s, the largest is %d", ErrOverflow, text, uint64(Max))
	}
	if err != nil {
		return fmt.Errorf("generation: %w", err)
	}
	*g = Generation(n)
	return nil
}

// Parse reads the decimal form of a generation from 1 to [Max]. It takes only
// the form that [Generation.String] writes: no sign, no space, no leading zero.
func Parse(s string) (Generation, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && n > uint64(Max):
		return None, fmt.Errorf("%w: %q, the largest is %d", ErrOverflow, s, uint64(Max))
	case err != nil, n == 0, Generation(n).String() != s:
		return None, fmt.Errorf("%w: %q, want a whole number from 1 to %d", ErrMalformed, s, uint64(Max))
	}
	return Generation(n), nil
}

// Resolve returns the generation of this process: flag where it is not
// [None], else what the variable [EnvVar] says. Getenv is os.Getenv, or a
// stand-in.
//
// It returns an error that wraps [ErrMissing] where neither is given, and one
// that wraps [ErrMalformed] or [ErrOverflow] where the variable holds something
// else. Each asks for halt with the exit code for configuration, 78.
func Resolve(flag Generation, getenv func(string) string) (Generation, error) {
	if flag > Max {
		return None, exitcodes.WithCode(
			fmt.Errorf("%w: %d, the largest is %d", ErrOverflow, uint64(flag), uint64(Max)), exitcodes.Config)
	}
	if flag != None {
		return flag, nil
	}
	text := getenv(EnvVar)
	if text == "" {
		return None, exitcodes.WithCode(fmt.Errorf(
			"%w: give this release its number with a flag or in %s; `fencepost generation next` hands one out",
			ErrMissing, EnvVar), exitcodes.Config)
	}
	g, err := Parse(text)
	if err != nil {
		return None, exitcodes.WithCode(fmt.Errorf("%s: %w", EnvVar, err), exitcodes.Config)
	}
	return g, nil
}
