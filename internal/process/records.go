package process

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/spool"
)

// Records is where children leave their ending records, and where the last
// of these is passed on to.
type Records struct {
	dir  string // private; "" where none could be made
	path string // the child's file in it; "" likewise, and before Clear
	next string // where this process's own record goes; "" for nowhere

	passing *spool.Queue[exitcodes.Record] // to next, which may be a disk that hangs
	err     error                          // why there is no dir; nil where there is one
}

// NewRecords makes a folder that only the child is told about. Read-only
// containers often have no /tmp but do have /dev/shm. Next is where this process's
// own record goes, or empty.
func NewRecords(next string) *Records {
	l := &Records{next: next, passing: spool.New(1, func(r exitcodes.Record, _ int) {
		_ = exitcodes.WriteRecord(next, r) // a courtesy: this process's exit status remains
	})}
	parents := []string{os.TempDir(), "/dev/shm"}
	if l.next != "" {
		parents = append(parents, filepath.Dir(l.next))
	}
	var errs []error
	for _, parent := range parents {
		dir, err := os.MkdirTemp(parent, "fencepost-run-")
		if err == nil {
			l.dir = dir
			return l
		}
		errs = append(errs, err)
	}
	l.err = fmt.Errorf("no folder for its ending record: %w", errors.Join(errs...))
	return l
}

// Path is where the child that is started next leaves its record; empty where
// there is no place for that.
func (l *Records) Path() string { return l.path }

// Clear makes a fresh file for the next child, and forgets the last one's. The
// child may run as another user, so the folder can be entered and the file be
// written by everybody who knows its name, which nobody can list or guess.
func (l *Records) Clear() error {
	if l.dir == "" {
		return l.err
	}
	if l.path != "" {
		_ = os.Remove(l.path) // the next file has another name
	}
	l.path = filepath.Join(l.dir, rand.Text())
	if err := os.WriteFile(l.path, nil, 0o666); err != nil {
		return fmt.Errorf("no file for its ending record: %w", err)
	}
	return errors.Join(os.Chmod(l.path, 0o666), os.Chmod(l.dir, 0o711))
}

// Read returns the record of a child that ended with code. A record with any
// other code is not the child's own word: nil, as where there is none.
func (l *Records) Read(code exitcodes.Code) *exitcodes.Record {
	if l.path == "" {
		return nil
	}
	r, err := exitcodes.ReadRecord(l.path)
	if err != nil || r.Code != code {
		return nil
	}
	return &r
}

// PassOn leaves r where this process's own record belongs, and does not wait until
// it is written.
func (l *Records) PassOn(r exitcodes.Record) {
	if l.next != "" {
		l.passing.Put(r)
	}
}

// Close waits for what is passed on, at most for that long, and removes the folder.
func (l *Records) Close(within time.Duration) {
	l.passing.Flush(within)
	if l.dir != "" {
		_ = os.RemoveAll(l.dir) // it is a temporary folder
	}
}

// Lookup returns the getenv of an environment; of a name's entries the last
// counts.
func Lookup(environ []string) func(string) string {
	return func(name string) string {
		value := ""
		for _, entry := range environ {
			if v, ok := strings.CutPrefix(entry, name+"="); ok {
				value = v
			}
		}
		return value
	}
}

// With returns an environment in which names have other values; an empty value
// takes the name out.
func With(environ []string, values map[string]string) []string {
	changed := slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		_, ok := values[name]
		return ok
	})
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if values[name] != "" {
			changed = append(changed, name+"="+values[name])
		}
	}
	return changed
}
