// Package epoch counts the owners that a resource has had.
//
// Every successful claim is given the next [Epoch]. Epochs only grow: ending a
// process does not return its number, and neither does a new deploy, a restore
// or an empty catalog. That is what lets a stale writer be refused on the
// number alone, without asking a clock or a network who is alive.
//
// The package decides nothing else: which of two writers is the newer one is
// decided by package fence, which orders epochs beneath generations.
package epoch

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// An Epoch is the ordinal of one ownership. The zero Epoch, [None], means that
// the resource was never claimed.
//
// Its text form is decimal, its JSON form a number and its SQL form a bigint.
type Epoch uint64

const (
	// None is the epoch of a resource that has had no owner.
	None Epoch = 0

	// Max is the last epoch. It is the largest number that every store can
	// hold: SQL's bigint has a sign.
	Max Epoch = math.MaxInt64

	// Room is how many numbers [Epoch.CheckRoom] wants above an epoch.
	Room = 1 << 32
)

var (
	// ErrOverflow means that a number is above [Max]. It does not heal: epochs are
	// never reused, so a resource whose epochs are spent needs a new catalog.
	ErrOverflow = errors.New("epoch: above the largest epoch")

	// ErrNoRoom means that a number leaves too few above it for the claims that are
	// to follow.
	ErrNoRoom = errors.New("epoch: too few numbers are left above it")
)

// Next returns the epoch that follows e, or [ErrOverflow] where there is none.
// It never wraps around: that would let every past owner write again.
func (e Epoch) Next() (Epoch, error) {
	if e >= Max {
		return e, fmt.Errorf("%w: %d has no successor, the largest is %d", ErrOverflow, uint64(e), uint64(Max))
	}
	return e + 1, nil
}

// CheckRoom returns an error that wraps [ErrNoRoom] if fewer than [Room] numbers
// are above e. It is for numbers that are chosen freely, such as the one above
// which a restored catalog goes on.
func (e Epoch) CheckRoom() error {
	if e > Max-Room {
		return fmt.Errorf("%w: %d, want at most %d, so that %d further claims can follow", ErrNoRoom, uint64(e), uint64(Max-Room), uint64(Room))
	}
	return nil
}

// String returns e in decimal.
func (e Epoch) String() string { return strconv.FormatUint(uint64(e), 10) }

// UnmarshalJSON reads a number from 0 to [Max]. Above Max it returns an error
// that wraps [ErrOverflow]. As in every JSON decoding, null changes nothing.
func (e *Epoch) UnmarshalJSON(text []byte) error {
	n := uint64(*e)
	err := json.Unmarshal(text, &n)
	if _, perr := strconv.ParseUint(string(text), 10, 64); errors.Is(perr, strconv.ErrRange) || n > uint64(Max) {
		return fmt.Errorf("%w: %s, the largest is %d", ErrOverflow, text, uint64(Max))
	}
	if err != nil {
		return fmt.Errorf("epoch: %w", err)
	}
	*e = Epoch(n)
	return nil
}
