package registry

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/examples/indexer/gitindex"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/work"
)

var (
	// ErrInvalid means that a change can't be one.
	ErrInvalid = errors.New("not a valid change")

	// ErrExists means that a package has the version that is to be published, or that
	// the ID stands for another change.
	ErrExists = errors.New("it exists already")

	// ErrNotFound means that there is no such version or change.
	ErrNotFound = errors.New("there is none")
)

// An Op is what a change does.
type Op string

// The operations.
const (
	Publish Op = "publish"
	Yank    Op = "yank"
	Unyank  Op = "unyank"
)

// A Change is what a client asks for.
type Change struct {
	// ID names the change, and is chosen by the client: a change that is sent again,
	// since its answer was lost, is done once.
	ID       string `json:"id"`
	Op       Op     `json:"op"`
	Name     string `json:"name"`
	Version  string `json:"version"`
	Checksum string `json:"checksum,omitempty"` // of publish: SHA-256 in hexadecimal
}

// A Version is one version of a package.
type Version struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Checksum string `json:"checksum"`
	Yanked   bool   `json:"yanked"`
}

// The collections of the registry.
var (
	packages = catalog.JSON[packageRecord]("indexer.packages") // by name
	versions = catalog.JSON[Version]("indexer.versions")       // by name and version
	changes  = catalog.JSON[changeRecord]("indexer.changes")   // by ID
	indexed  = catalog.JSON[indexedRecord]("indexer.indexed")  // by name
	feed     = catalog.JSON[Announced]("indexer.feed")         // by job
)

// A packageRecord counts the changes of a package.
type packageRecord struct {
	Changes uint64 `json:"changes"`
}

// A changeRecord is a change that was accepted.
type changeRecord struct {
	Change
	Number uint64    `json:"number"` // of the package's changes, from 1
	Job    work.ID   `json:"job"`    // the sync that was enqueued with it
	At     time.Time `json:"at"`
}

// An indexedRecord says what the index has of a package.
type indexedRecord struct {
	Number uint64      `json:"number"` // of the newest change that it has
	Commit string      `json:"commit"`
	Token  fence.Token `json:"token"` // of the run
}

// Announced is an entry of the feed.
type Announced struct {
	Op      Op     `json:"op"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Change  string `json:"change"`
}

// The kinds of jobs.
const (
	SyncKind     = "sync"
	AnnounceKind = "announce"
)

// Limits of texts, in bytes.
const (
	maxID      = 64
	maxVersion = 64
	checksum   = 64 // as long as it is
)

const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// made reports whether a text has 1 to limit bytes, all of them out of a set.
func made(text string, limit int, of string) bool {
	return text != "" && len(text) <= limit && strings.Trim(text, of) == "" && !strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(of, r) })
}

func (c Change) check() error {
	if !made(c.ID, maxID, digits+letters+"-") {
		return fmt.Errorf("%w: the ID %.64q: want 1 to %d letters, digits and hyphens", ErrInvalid, c.ID, maxID)
	}
	if err := gitindex.CheckName(c.Name); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !made(c.Version, maxVersion, digits+letters+".+-") {
		return fmt.Errorf("%w: the version %.64q: want 1 to %d letters, digits and any of .+-", ErrInvalid, c.Version, maxVersion)
	}
	switch c.Op {
	case Publish:
		if len(c.Checksum) != checksum || !made(c.Checksum, checksum, digits+"abcdef") {
			return fmt.Errorf("%w: the checksum %.64q: want %d hexadecimal digits", ErrInvalid, c.Checksum, checksum)
		}
	case Yank, Unyank:
		if c.Checksum != "" {
			return fmt.Errorf("%w: %s takes no checksum", ErrInvalid, c.Op)
		}
	default:
		return fmt.Errorf("%w: the operation %.64q: want publish, yank or unyank", ErrInvalid, c.Op)
	}
	return nil
}

// entry is the key of a version.
func entry(name, version string) string { return name + "/" + version }

// Accept makes a change and enqueues the jobs that follow from it. A change that was
// accepted before changes nothing more. Its errors wrap [ErrInvalid], [ErrExists] or
// [ErrNotFound], or are of the catalog or the queue.
func Accept(tx *catalog.Tx, c Change, now time.Time) error {
	if err := c.check(); err != nil {
		return err
	}
	old, found, err := changes.Get(tx, c.ID)
	switch {
	case err != nil:
		return err
	case found && old.Change == c:
		return nil
	case found:
		return fmt.Errorf("change %s is another one: %w: choose another ID", c.ID, ErrExists)
	}
	if err := c.apply(tx); err != nil {
		return err
	}
	p, _, err := packages.Get(tx, c.Name)
	if err != nil {
		return err
	}
	p.Changes++
	if err := packages.Set(tx, c.Name, p); err != nil {
		return err
	}
	job, err := work.EnqueueAll(tx,
		work.Request{Kind: SyncKind, Key: c.Name},
		work.Request{Kind: AnnounceKind, Payload: []byte(c.ID)},
	)
	if err != nil {
		return err
	}
	return changes.Set(tx, c.ID, changeRecord{Change: c, Number: p.Changes, Job: job, At: now.UTC().Round(0)})
}

// apply changes the version.
func (c Change) apply(tx *catalog.Tx) error {
	key := entry(c.Name, c.Version)
	v, found, err := versions.Get(tx, key)
	switch {
	case err != nil:
		return err
	case c.Op == Publish && found:
		return fmt.Errorf("%s %s: %w", c.Name, c.Version, ErrExists)
	case c.Op == Publish:
		v = Version{Name: c.Name, Version: c.Version, Checksum: c.Checksum}
	case !found:
		return fmt.Errorf("%s %s: %w", c.Name, c.Version, ErrNotFound)
	default:
		v.Yanked = c.Op == Yank
	}
	return versions.Set(tx, key, v)
}
