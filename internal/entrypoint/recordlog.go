package entrypoint

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fencepost/fencepost/exitcodes"
)

// A recordLog is where children leave their ending records, and where the last
// of these is passed on to.
type recordLog struct {
	dir  string // private; "" where none could be made
	path string // the child's file in it; "" likewise, and before clear
	next string // where this process's own record goes; "" for nowhere
	err  error  // why there is no dir; nil where there is one
}

// newRecordLog makes a folder that only the child is told about. Read-only
// containers often have no /tmp but do have /dev/shm.
func newRecordLog(cfg Config) *recordLog {
	l := &recordLog{next: exitcodes.RecordPath(lookup(cfg.Environ))}
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

// clear makes a fresh file for the next child, and forgets the last one's. The
// child may run as another user, so the folder can be entered and the file be
// written by everybody who knows its name, which nobody can list or guess.
func (l *recordLog) clear() error {
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

// read returns the record of a child that ended with code. A record with any
// other code is not the child's own word: nil, as where there is none.
func (l *recordLog) read(code exitcodes.Code) *exitcodes.Record {
	if l.path == "" {
		return nil
	}
	r, err := exitcodes.ReadRecord(l.path)
	if err != nil || r.Code != code {
		return nil
	}
	return &r
}

// passOn leaves r where this process's own record belongs. It is a courtesy to
// whoever supervises this process; when it fails, its exit status remains.
func (l *recordLog) passOn(r exitcodes.Record) {
	if l.next != "" {
		_ = exitcodes.WriteRecord(l.next, r)
	}
}

func (l *recordLog) close() {
	if l.dir != "" {
		_ = os.RemoveAll(l.dir) // it is a temporary folder
	}
}

// lookup returns the getenv of an environment; of a name's entries the last
// counts.
func lookup(environ []string) func(string) string {
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
