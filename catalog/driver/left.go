package driver

import (
	"context"
	"fmt"
	"time"
)

// A Cleaner is a Store beside whose catalog processes leave something when they die
// at a bad moment, which no claim and no Trim removes. A store in which nothing of that
// kind can be left is none.
type Cleaner interface {
	// Left lists what is there, in use or not, oldest first. It writes nothing.
	Left(ctx context.Context) ([]Leftover, error)

	// RemoveLeft removes one of Left's, and reports whether anything of it was still
	// there. It refuses what is younger than [LeftLife], or is none of Left's: a
	// living process may use it.
	RemoveLeft(ctx context.Context, l Leftover) (removed bool, err error)
}

// A Leftover is one thing that a process may have left.
type Leftover struct {
	Kind LeftKind  `json:"kind"`
	Name string    `json:"name"`
	Made time.Time `json:"made"` // by the clock of the process that made it, or of its file system
}

// A LeftKind says what a [Leftover] is.
type LeftKind string

const (
	// ScratchPlace is a place in which a check of the store raced. See [Scratcher].
	ScratchPlace LeftKind = "scratch place"

	// UnfinishedFile is a file that has not got its name. See package ownfile.
	UnfinishedFile LeftKind = "unfinished file"
)

// LeftLife is the age from which a leftover is taken for one of a dead process. What
// makes one takes milliseconds; the rest is for clocks that differ, by a time zone too.
const LeftLife = 24 * time.Hour

// Expired reports whether l is old enough to be removed.
func (l Leftover) Expired() bool { return l.expired(time.Now()) }

func (l Leftover) expired(now time.Time) bool { return !l.Made.IsZero() && now.Sub(l.Made) > LeftLife }

// CheckScratch refuses a leftover that is no scratch place of a dead process, by its name
// alone.
func (l Leftover) CheckScratch() error {
	place, ok := ScratchLeft(l.Name)
	if !ok || l.Kind != ScratchPlace || !place.Expired() {
		return fmt.Errorf("%q is no %s of a dead process", l.Name, ScratchPlace)
	}
	return nil
}
