package sqlite

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/step"
)

var (
	errLocked = errors.New("the file is locked")
	errWanted = errors.New("a claim is under way")
)

// Claim implements [driver.Store]. It first locks the -claim file, at which
// every writer looks before it begins a transaction: a holder that commits in a
// tight loop would starve a claim that only competes for SQLite's own lock.
func (s *Store) Claim(ctx context.Context) (driver.Claiming, error) {
	w, err := s.acquire(ctx)
	if err != nil {
		return nil, s.wrap("claim", s.blocked(err), false)
	}
	if err := oneLibrary(s.path); err != nil {
		s.release(w, false)
		return nil, s.wrap("claim", err, false)
	}
	if driver.Adopts(ctx) {
		if err := w.checkPages(ctx, s.path); err != nil {
			s.release(w, false)
			return nil, s.wrap("claim", err, false)
		}
	}
	if err := untilFree(ctx, func() error { return flock(w.claim, unix.LOCK_EX) }); err != nil {
		s.release(w, false)
		return nil, s.wrap("claim", s.blocked(err), false)
	}
	if err := w.begin(ctx, s.path, func() error { return nil }); err != nil {
		w.unlock()
		s.release(w, readOnly(err))
		return nil, s.wrap("claim", s.blocked(err), false)
	}
	c := &claiming{store: s, w: w}
	if err := c.readHead(); err != nil {
		c.Abandon()
		return nil, s.wrap("claim", err, false)
	}
	step.Reach(ctx, step.ClaimBegun)
	return c, nil
}

// blocked marks an error that a lock caused, or a write of this process. A claim that
// came to none of them before its time was over was blocked by nobody.
func (s *Store) blocked(err error) error {
	switch {
	case errors.Is(err, errLocked):
		return fmt.Errorf("%w: %w", driver.ErrBlocked, err)
	case errors.Is(err, errWanted):
		return fmt.Errorf("%w by a lock on %s-claim, of %s: %w", driver.ErrBlocked, s.path, flockedBy(s.path+claimEnding), err)
	case errors.Is(err, errWriting) && errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", driver.ErrBlocked, err)
	}
	return err
}

// noClaim returns errWanted, which counts as busy, while a claim is under way.
func (w *writer) noClaim() error {
	if err := flock(w.claim, unix.LOCK_SH); err != nil {
		return err
	}
	w.unlock()
	return nil
}

// flock tries to lock the -claim file. The kernel releases it when the process
// dies.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return errWanted
		default:
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// unlockAndClose ends a lock of flock's at once. To close the file is not enough: a
// process that is being started has it, too, until it is another program.
func unlockAndClose(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN) // can't fail on an open file
	_ = f.Close()
}

func (w *writer) unlock() { _ = unix.Flock(int(w.claim.Fd()), unix.LOCK_UN) } // can't fail on an open file

// claiming is a claim under way: a write transaction, and the -claim lock.
type claiming struct {
	store *Store
	w     *writer // nil once the claim has ended
	head  driver.Head

	losses driver.Losses
	next   []byte // what Install replaces the losses by; nil: nothing
}

func (c *claiming) readHead() error {
	exists, err := checkSchema(unbounded, c.w.conn)
	if err != nil || !exists {
		return err
	}
	if c.head, err = selectHead(unbounded, c.w.conn); err != nil {
		return err
	}
	c.losses, err = c.w.losses()
	return err
}

// Losses implements [driver.Claiming].
func (c *claiming) Losses() driver.Losses { return c.losses }

// ReplaceLosses implements [driver.Claiming].
func (c *claiming) ReplaceLosses(text []byte) { c.next = text }

// Head implements [driver.Claiming].
func (c *claiming) Head() driver.Head { return c.head }

// Log implements [driver.Claiming].
func (c *claiming) Log(ctx context.Context, after uint64, fn func(driver.Record) error) error {
	if c.w == nil {
		return c.store.wrap("log", errEnded, false)
	}
	if c.head.IsZero() {
		return nil
	}
	return c.store.wrap("log", selectLog(ctx, c.w.conn, after, fn), false)
}

var errEnded = errors.New("the claim has ended")

// Renew implements [driver.Claiming]. A claimer that lives needs to show it to
// nobody: it holds its locks until it ends, and one that dies loses them at once.
// One that is stopped blocks the others, who name it.
func (c *claiming) Renew(context.Context) error {
	if c.w == nil {
		return c.store.wrap("renew", errEnded, false)
	}
	return nil
}

// Install implements [driver.Claiming].
func (c *claiming) Install(ctx context.Context, claim driver.Claim, rec driver.Record, when ...driver.Note) error {
	if c.w == nil {
		return c.store.wrap("install", errEnded, false)
	}
	defer c.Abandon()
	if err := c.store.checkSize("install", len(rec.Payload), MaxPayload); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return c.store.wrap("install", err, false)
	}
	if c.head.IsZero() {
		if err := c.announce(ctx); err != nil {
			return c.store.wrap("install", err, false)
		}
	}
	if err := c.write(ctx, claim, rec, when); err != nil {
		return c.store.wrap("install", err, false)
	}
	broken, err := c.store.commit(c.w, "install")
	c.end(broken)
	if err != nil {
		return err
	}
	step.Reach(ctx, step.ClaimCommitted)
	return nil
}

// write does all of a claim but its commit.
func (c *claiming) write(ctx context.Context, claim driver.Claim, rec driver.Record, when []driver.Note) error {
	for _, n := range when {
		if err := c.w.noteAt(n); err != nil {
			return err
		}
	}
	if c.next != nil { // the lock for writing keeps the record what it was
		if _, err := c.w.setLosses(c.next); err != nil {
			return err
		}
	}
	if err := c.w.addViews(); err != nil {
		return err
	}
	text, err := driver.MarshalClaim(claim)
	if err != nil {
		return err
	}
	if err := c.w.exec(unbounded, `INSERT INTO claim (revision, claim) VALUES (?, ?)`, int64(claim.Revision), string(text)); err != nil {
		return err
	}
	step.Reach(ctx, step.ClaimHeadWritten)
	if err := c.w.exec(unbounded, insertLog, logValues(rec)...); err != nil {
		return err
	}
	step.Reach(ctx, step.ClaimLogWritten)
	return nil
}

// Abandon implements [driver.Claiming].
func (c *claiming) Abandon() {
	if c.w == nil {
		return
	}
	c.end(!c.w.rollback())
}

// end lets others write again.
func (c *claiming) end(broken bool) {
	c.w.unlock()
	c.store.release(c.w, broken)
	c.w = nil
}

// SQLite's lock for writing is a record lock: in WAL mode on one byte of the -shm
// file, else on one of the database file, beside those for reading.
const (
	walWriteLock      = "120"
	rollbackWriteLock = "1073741825"
	rollbackReadLock  = "1073741826"
)

// lockedBy names the process that holds SQLite's lock for writing, as far as
// the system tells.
func lockedBy(path string) string { return describe(locker(path)) }

// locker returns the process that holds SQLite's lock for writing, or "". A lock of
// an open file (OFD) has no process.
func locker(path string) (pid string) {
	return cmp.Or(owner(path+"-shm", "WRITE", posix(walWriteLock)), owner(path, "WRITE", posix(rollbackWriteLock)))
}

// reader returns a process that reads a database that has no WAL, or "".
func reader(path string) (pid string) { return owner(path, "READ", posix(rollbackReadLock)) }

func posix(byte string) func(kind, first string) bool {
	return func(kind, first string) bool { return kind == "POSIX" && first == byte }
}

// flockedBy names the process that holds a lock on a whole file.
func flockedBy(path string) string {
	flocks := func(kind, _ string) bool { return kind == "FLOCK" }
	return describe(cmp.Or(owner(path, "WRITE", flocks), owner(path, "READ", flocks))) // a reader's excludes a claim as well
}

// owner looks up a lock in /proc/locks, whose lines read
// "1: POSIX ADVISORY WRITE <pid> <major>:<minor>:<inode> <first> <last>". It returns
// "" if there is none, or the system does not say.
func owner(path, mode string, match func(kind, first string) bool) (pid string) {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	table, err := os.ReadFile("/proc/locks")
	if err != nil {
		return ""
	}
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(stat.Dev)), unix.Minor(uint64(stat.Dev)), stat.Ino)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) >= 8 && f[3] == mode && f[5] == inode && match(f[1], f[6]) {
			return f[4]
		}
	}
	return ""
}

// describe names a process and says whether it is stopped.
func describe(pid string) string {
	switch pid {
	case "":
		return "another process (the system does not say which)"
	case strconv.Itoa(os.Getpid()):
		return "process " + pid + ", which is this one: end the transaction that it has under way, such as a guarded one, before it waits for the catalog"
	}
	name, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
	if err != nil {
		return "process " + pid
	}
	text := fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(name)))
	if isStopped(pid) {
		text += ", which is stopped: continue or kill it"
	}
	return text
}

func isStopped(pid string) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	return err == nil && strings.HasPrefix(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " T ") // a name may have any character
}
