//go:build unix

package ownfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

var (
	// ErrPlanted means that something else than a regular file was there, or a file
	// that was not there a moment before.
	ErrPlanted = errors.New("not a regular file of this service")

	// ErrNotGiven means that the owner of the data could not use a new file.
	ErrNotGiven = errors.New("the file can't be given to the owner of the data")
)

// ownership is the owner, group and mode of a file.
type ownership struct {
	uid, gid int
	mode     fs.FileMode
}

func ownershipOf(info os.FileInfo) ownership {
	o := ownership{uid: -1, gid: -1, mode: info.Mode().Perm()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		o.uid, o.gid = int(stat.Uid), int(stat.Gid)
	}
	return o
}

// lockable returns the ownership of a file that only serves for its locks:
// exactly the users that may write the data may lock it.
func (o ownership) lockable() ownership {
	write := o.mode & 0o222
	o.mode = write | write<<1
	return o
}

// admits reports whether this owner may read and write a file to which give
// could give the owner, the group, or neither.
func (o ownership) admits(owner, group bool) bool {
	return owner || group && o.mode&0o060 == 0o060 || o.mode&0o006 == 0o006
}

// give sets owner and group of f as far as this process may, and reports which
// of the two are set.
func (o ownership) give(f *os.File) (owner, group bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, false, err
	}
	has := ownershipOf(info)
	group = o.gid < 0 || has.gid == o.gid || f.Chown(-1, o.gid) == nil
	owner = o.uid < 0 || has.uid == o.uid || f.Chown(o.uid, -1) == nil
	return owner, group, nil
}

// giveAll gives f this owner, group and mode. It fails if the owner could not
// use the file afterwards.
func (o ownership) giveAll(f *os.File) error {
	owner, group, err := o.give(f)
	if err != nil {
		return err
	}
	if !o.admits(owner, group) {
		return fmt.Errorf("%w, which is user %d: %s is of user %d: let one of them have both, by chown or by running as the other", ErrNotGiven, o.uid, f.Name(), os.Geteuid())
	}
	mode := o.mode
	if !group {
		mode = mode&^0o070 | mode&0o007<<3 // another group gets no more than everybody
	}
	return f.Chmod(mode) // whatever the umask is
}

// inherit gives f, a new file, the owner and group of its folder as far as
// this process may. The mode is the one that the umask left of the folder's, and
// if the folder is shared by a group, so is the file, whatever the umask is.
func (o ownership) inherit(f *os.File, forAll bool) error {
	_, group, err := o.give(f)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mode := info.Mode().Perm() | 0o600
	if group && !forAll && o.mode&0o020 != 0 {
		mode |= 0o060
	}
	return f.Chmod(mode)
}

// A Making says how a file is created: with which mode, of which the umask takes
// its part, and what is done to it before it gets its name.
type Making struct {
	mode fs.FileMode
	give func(*os.File) error
}

// Like makes a file as the one at path is, or ought to be: it gets the owner and mode
// of the file that is there, or else of the folder. A file in a folder for all, such
// as /tmp, is still its owner's. It is an error if something else than a file is there.
func Like(path string) (Making, error) {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return Making{}, fmt.Errorf("%w: %s is %v", ErrPlanted, path, info.Mode().Type())
	}
	if err == nil {
		return Making{0o600, ownershipOf(info).giveAll}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Making{}, err
	}
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return Making{}, err
	}
	o, forAll, mode := ownershipOf(folder), false, folder.Mode().Perm()&0o666
	if folder.Mode()&fs.ModeSticky != 0 && mode&0o002 != 0 {
		forAll, mode = true, 0o644
	}
	return Making{mode, func(f *os.File) error { return o.inherit(f, forAll) }}, nil
}

// Beside makes a lock file beside the file that info is of.
func Beside(info os.FileInfo) Making {
	return Making{0o600, ownershipOf(info).lockable().giveAll}
}

// AsLock makes a lock file as m makes the file beside which it is.
func (m Making) AsLock() Making {
	return Making{m.mode, func(f *os.File) error {
		if err := m.give(f); err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return f.Chmod(ownershipOf(info).lockable().mode)
	}}
}

// Create creates a file that was not there before.
func (m Making) Create(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, m.mode)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w: %w", ErrPlanted, err)
	}
	if err != nil {
		return nil, err
	}
	if err := m.give(f); err != nil {
		return nil, Discard(f, err)
	}
	return f, nil
}

// Discard closes a file and removes its name. It returns err too.
func Discard(f *os.File, err error) error {
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// OpenLock opens a file that is there for its locks, and creates it if there is none.
func OpenLock(path string, m Making) (*os.File, error) {
	f, err := Open(path, os.O_RDWR)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	name := filepath.Join(filepath.Dir(path), unfinished(path)+rand.Text())
	f, err = m.Create(name)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, errors.Join(err, os.Remove(name))
	}
	if err = RenameNew(name, path); err != nil {
		rerr := os.Remove(name)
		if !errors.Is(err, fs.ErrExist) || rerr != nil {
			return nil, errors.Join(err, rerr)
		} // another process was faster
	}
	return Open(path, os.O_RDWR)
}

// unfinished is how the name of a file begins that is to become the one at path.
func unfinished(path string) string { return "." + filepath.Base(path) + "-" }

// randomText is what crypto/rand.Text returns.
var randomText = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// IsUnfinished reports whether name, of a file in the folder of path, is that of a file
// which OpenLock makes for path before it gets that name. A process that dies in between
// leaves it.
func IsUnfinished(name, path string) bool {
	rest, found := strings.CutPrefix(name, unfinished(path))
	return found && randomText.MatchString(rest)
}

// linkNew is RenameNew for a file that has two names for a moment.
func linkNew(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

// Open opens a file that was there before. It follows no link and waits for nobody at
// the other end of a pipe.
func Open(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, how|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EISDIR) {
		return nil, fmt.Errorf("%w: %w", ErrPlanted, err)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is %v", ErrPlanted, path, info.Mode().Type())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
