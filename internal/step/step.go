// Package step names the points between the steps of the protocol at which a
// process can die, so that tests can make it die there.
//
// A point costs one context look-up where nobody listens. The list [All] is
// what the tests go through: a point that no test reaches fails them.
package step

import "context"

// A Point is an instant between two steps.
type Point string

// The points, in the order in which one claim, one commit and one compaction pass them.
const (
	OpenHeadRead      Point = "open: head read, nothing claimed"
	ClaimBegun        Point = "claim: begun, head locked"
	ClaimMigrated     Point = "claim: migrations computed, nothing written"
	ClaimHeadWritten  Point = "claim: head written, not committed"
	ClaimLogWritten   Point = "claim: log written, not committed"
	ClaimCommitted    Point = "claim: committed, not acknowledged"
	CommitBegun       Point = "commit: begun, nothing written"
	CommitLanded      Point = "commit: committed, not acknowledged"
	CommitAcked       Point = "commit: acknowledged to the caller"
	BatchStaged       Point = "commit: a large batch staged, not published"
	SnapshotStaged    Point = "compaction: a part staged"
	SnapshotPublished Point = "compaction: snapshot published, nothing deleted"
	SnapshotTrimmed   Point = "compaction: some records deleted"
)

// StoreRaced is passed before the first claim of a catalog, and only once.
const StoreRaced Point = "open: the store was checked, its scratch place not removed"

// The points at which a file that holds a catalog is made, and its first claim
// announced. Only a store of files passes them, and only once.
const (
	FileCreated   Point = "file: created under another name, empty"
	FileWritten   Point = "file: written, under another name"
	FileNamed     Point = "file: named"
	FileAnnounced Point = "file: first claim announced in the WAL"
	FileMarked    Point = "file: first claim announced in the file"
)

// The points at which a register is raised.
const (
	RegisterLocked  Point = "register: locked, nothing written"
	RegisterWritten Point = "register: written, not committed"
	RegisterRaised  Point = "register: raised, not acknowledged"
)

// Raising lists the points of a register that is raised, in order.
func Raising() []Point { return []Point{RegisterLocked, RegisterWritten, RegisterRaised} }

// Creation lists the points of a file that is made, in order.
func Creation() []Point {
	return []Point{FileCreated, FileWritten, FileNamed, FileAnnounced, FileMarked}
}

// All lists every point but StoreRaced and those of Creation and of Raising, in order.
func All() []Point {
	return []Point{
		OpenHeadRead, ClaimBegun, ClaimMigrated, ClaimHeadWritten, ClaimLogWritten, ClaimCommitted,
		CommitBegun, CommitLanded, CommitAcked,
		BatchStaged, SnapshotStaged, SnapshotPublished, SnapshotTrimmed,
	}
}

type key struct{}

// With returns a context under which every point reached is reported to fn.
func With(ctx context.Context, fn func(Point)) context.Context {
	return context.WithValue(ctx, key{}, fn)
}

// Reach reports that p is reached.
func Reach(ctx context.Context, p Point) {
	if fn, ok := ctx.Value(key{}).(func(Point)); ok {
		fn(p)
	}
}
