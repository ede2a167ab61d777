package driver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"
)

// A Scratcher is a Store that can open a scratch place: an empty catalog beside
// its own, in the same database, cluster or folder, and reached the same way.
// Package catalog races conditional writes there before the first claim, because
// everything rests on the losers being refused.
type Scratcher interface {
	// Scratch opens a new scratch place. It reads and writes nothing of the
	// Store's own catalog, and removes what dead processes left of older
	// scratch places. It may leave out a way to the store that does not answer.
	//
	// A driver that tests what its conditions rest on by itself, such as the
	// locks of a file system, does so here. The error then wraps [ErrTwoWon].
	Scratch(ctx context.Context) (Scratch, error)
}

// A Scratch is a scratch place under way.
type Scratch struct {
	// Stores are two stores or more on the place, used at the same time. Each
	// uses a connection or a way to the store of its own, as far as there are
	// several. They are used as processes use theirs.
	Stores []Store

	// Discard closes the stores and removes the place. What it can't remove, a
	// later Scratch removes.
	Discard func(ctx context.Context) error
}

// ErrTwoWon means that a store did not refuse a write whose condition did not
// hold, so that two processes could write at the same time. Nothing protects
// data on such a store.
var ErrTwoWon = errors.New("the store lets two writers win")

// NewScratchName returns a name for a scratch place, of the characters 0-9, a-f
// and -. It holds the time at which it was made.
func NewScratchName() string { return scratchName(time.Now()) }

func scratchName(now time.Time) string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails: see crypto/rand
	return strconv.FormatInt(now.Unix(), 16) + "-" + hex.EncodeToString(id[:])
}

// ScratchLeft returns the scratch place of a name as a leftover, and whether the name is
// one of NewScratchName. A place that is removed while it is used looks like a store
// that lets two win: ask [Leftover.Expired].
func ScratchLeft(name string) (l Leftover, ok bool) {
	made, id, _ := strings.Cut(name, "-")
	seconds, err := strconv.ParseInt(made, 16, 64)
	raw, notHex := hex.DecodeString(id)
	if err != nil || notHex != nil || len(raw) != 8 || strconv.FormatInt(seconds, 16) != made {
		return Leftover{}, false
	}
	return Leftover{Kind: ScratchPlace, Name: name, Made: time.Unix(seconds, 0)}, true
}
