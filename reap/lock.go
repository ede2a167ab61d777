package reap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// ErrLocked means that another process of this host, or another goroutine of this one,
// has the lock.
var ErrLocked = errors.New("reap: locked")

// A LockedError says who has a lock. It matches [ErrLocked].
type LockedError struct {
	Path  string
	PID   int         // of the holder, in its own namespace; 0 if it is not known
	Token fence.Token // of the holder; zero if it is not known
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("reap: %s is locked by another process: wait for it, or end it", e.Path)
	}
	return fmt.Sprintf("reap: %s is locked by process %d under %v: wait for it, or end it", e.Path, e.PID, e.Token)
}

// Is makes errors.Is find ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// Disposition is retry.
func (e *LockedError) Disposition() exitcodes.Disposition { return exitcodes.Retry }

// A HostLock is a lock that one process of a host has at a time: the lock of a file.
//
// The file is opened by each call, and closed in every program that a process starts.
// So neither two goroutines nor a process and its children have the lock together. The
// system releases it when the process ends, however it ends. The file is created with
// the owner of its folder, is never removed, and is no link. It names the last owner of the
// lock, for people, and what passes need not do again; mutual exclusion does not rest on
// it.
//
// The file must be on a disk of this host. Over NFS, where the lock is the server's and
// may be lost without a word, a HostLock is not supported.
type HostLock struct {
	Path   string
	Token  fence.Token // under which the caller works, for people; may be zero
	OnWait func(Wait)  // is told once before Lock waits; may be nil
}

// A Held is a lock that was acquired, until Unlock. It is for one goroutine. One that is
// dropped is released by the garbage collector, at some time.
type Held struct {
	file *os.File
	mine lockRecord
	last lockRecord // of whoever had the lock before
}

// A lockRecord says who has, or had, a lock, and what others need not do again.
type lockRecord struct {
	Format string      `json:"format"`
	PID    int         `json:"pid"`
	Token  fence.Token `json:"token"`
	Caller string      `json:"caller"` // the pass that last called the source
	Ended  *endRecord  `json:"ended"`  // the last pass that ended
	Paused pauseRecord `json:"paused"` // the last pass that left the server alone for a while
}

const (
	lockFormat    = "fencepost host lock 1"
	lockBegin     = `{"format":"fencepost host lock `
	maxLockRecord = 4096 // bytes that are read

	shortestPoll, longestPoll = time.Millisecond, 50 * time.Millisecond
)

// TryLock acquires the lock, or returns a *[LockedError] at once.
func (l HostLock) TryLock() (h *Held, err error) {
	if l.Path == "" {
		return nil, exitcodes.WithCode(errors.New("reap: lock file: Path is empty: name a file on a disk of this host"), exitcodes.Config)
	}
	f, err := openLockFile(l.Path)
	if errors.Is(err, fs.ErrNotExist) && isThere(filepath.Dir(l.Path)) { // it was removed while it was opened
		return nil, &LockedError{Path: l.Path}
	}
	if err != nil {
		return nil, err
	}
	ok, err := flock(f)
	if err == nil && !ok {
		err = l.locked(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	same, err := isStillAt(f, l.Path)
	if err == nil && same {
		return l.held(f), nil
	}
	if err = errors.Join(err, releaseFile(f)); err != nil {
		return nil, err
	}
	return nil, &LockedError{Path: l.Path} // replaced just now: the next try opens the new file
}

func isThere(folder string) bool {
	_, err := os.Stat(folder)
	return err == nil
}

// Lock acquires the lock, and waits for it as long as ctx allows. After that the error
// wraps the *[LockedError] and the cause of ctx.
func (l HostLock) Lock(ctx context.Context) (*Held, error) {
	for poll := shortestPoll; ; poll = min(2*poll, longestPoll) {
		h, err := l.TryLock()
		if !errors.Is(err, ErrLocked) {
			return h, err
		}
		if poll == shortestPoll && l.OnWait != nil {
			l.OnWait(Wait{Reason: WaitLocked, For: timeLeft(ctx), Detail: err.Error()})
		}
		if cause := sleep(ctx, poll/2+rand.N(poll)); cause != nil {
			return nil, fmt.Errorf("%w: %w", err, cause)
		}
	}
}

// timeLeft returns the time until the deadline of ctx, or 0 if it has none.
func timeLeft(ctx context.Context) time.Duration {
	if at, ok := ctx.Deadline(); ok {
		return time.Until(at)
	}
	return 0
}

func (l HostLock) locked(f *os.File) error {
	by := readLockRecord(f)
	return &LockedError{Path: l.Path, PID: by.PID, Token: by.Token}
}

func (l HostLock) held(f *os.File) *Held {
	h := &Held{file: f, last: readLockRecord(f), mine: lockRecord{
		Format: lockFormat, PID: os.Getpid(), Token: l.Token,
	}}
	h.mine.Caller, h.mine.Ended, h.mine.Paused = h.last.Caller, h.last.Ended, h.last.Paused
	h.write()
	return h
}

// Unlock releases the lock, also for a child process that was forked just now and has
// not closed its copy of the file yet.
func (h *Held) Unlock() error { return releaseFile(h.file) }

// write says who has the lock. A full disk, which a clean-up may be there to mend, stops
// nobody: others then make calls that they could have saved.
func (h *Held) write() {
	text, err := json.Marshal(h.mine)
	if err != nil || len(text) >= maxLockRecord { // which nobody would take for a record
		return
	}
	if n, err := h.file.WriteAt(append(text, '\n'), 0); err == nil {
		_ = h.file.Truncate(int64(n))
	}
}

// readLockRecord returns the zero record if there is none that can be read, as when it
// is being written.
func readLockRecord(f *os.File) (r lockRecord) {
	text := make([]byte, maxLockRecord)
	n, _ := f.ReadAt(text, 0) // at the end of the file there is an error too
	if json.Unmarshal(text[:n], &r) != nil || r.Format != lockFormat {
		return lockRecord{}
	}
	return r
}
