package reap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/clock"
)

var (
	// ErrTooLarge means that the result of a flight exceeds Flight.MaxBytes.
	ErrTooLarge = errors.New("reap: the result is too large to be shared")

	// ErrShared means that another process made the call, and it failed there.
	ErrShared = errors.New("reap: another process of this host made this call, and it failed")

	// ErrUnshared means that a call was made, and what came of it could not be written
	// for the others. The result is valid.
	ErrUnshared = errors.New("reap: the result could not be shared")
)

// A Flight makes one call for all processes of a host that ask for it at once. A process
// gets the result of a call that began after it had asked, or less than MaxAge ago, and
// makes the call itself if there is none. So processes that ask within the duration of
// one call cost two calls at most, however many they are, and one if MaxAge is at least
// the time over which they ask.
//
// A failed call is shared by those that asked before it began, whatever MaxAge is. If the
// process that makes the call dies, or its context ends, another one makes it anew.
//
// The files are in Dir, which must be on a disk of this host, see [HostLock]. A result is
// believed if its owner is this user, root, or the owner of Dir. Between processes whose
// clocks can't be compared, as on systems other than Linux, calls are made one after the
// other, and none is shared.
type Flight struct {
	Dir  string
	Name string // of the call: letters, digits, '-', '_' and '.'

	// MaxAge is how old a result may be, from when its call began. Default: 0.
	MaxAge time.Duration

	// MaxBytes bounds the result. Default: 1 MiB.
	MaxBytes int

	// OnWait is told once before Do waits for another process. It may be nil.
	OnWait func(Wait)
}

// A flightResult is what a file of a result holds.
type flightResult struct {
	Format string `json:"format"`
	Clock  string `json:"clock"` // by which Began is
	Began  int64  `json:"began"` // ns
	Result []byte `json:"result"`
	Failed bool   `json:"failed,omitempty"`
	Error  string `json:"error,omitempty"`
}

const flightFormat = "fencepost flight 1"

// Do returns the result of call, made by this process or by another one. It waits for
// others as long as ctx allows.
func (f Flight) Do(ctx context.Context, call func(ctx context.Context) ([]byte, error)) (result []byte, err error) {
	if err := f.validate(); err != nil {
		return nil, exitcodes.WithCode(fmt.Errorf("reap: flight: %w", err), exitcodes.Config)
	}
	asked := clock.Boot()
	held, err := HostLock{Path: f.path(".lock"), OnWait: f.OnWait}.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, held.Unlock()) }()
	if r, ok := f.read(); ok && f.answers(r, asked) {
		return r.unpack()
	}
	return f.fly(ctx, call)
}

// fly makes the call, and shares what came of it unless that is only the end of ctx.
func (f Flight) fly(ctx context.Context, call func(ctx context.Context) ([]byte, error)) ([]byte, error) {
	began := clock.Boot()
	result, err := call(ctx)
	if most := f.maxBytes(); err == nil && len(result) > most {
		result, err = nil, fmt.Errorf("%w: it has %d bytes, want MaxBytes, %d, at most", ErrTooLarge, len(result), most)
	}
	if ctx.Err() != nil {
		return result, err
	}
	r := flightResult{Format: flightFormat, Clock: clock.Timeline(), Began: int64(began), Result: result}
	if err != nil {
		r.Failed, r.Error, r.Result = true, fmt.Sprintf("%.*s", maxFailureText, err), nil
	}
	if werr := f.write(r); werr != nil {
		err = errors.Join(err, fmt.Errorf("%w: %w: the other processes call for themselves", ErrUnshared, werr))
	}
	return result, err
}

// answers reports whether a result is what a process that asked then may get.
func (f Flight) answers(r flightResult, asked time.Duration) bool {
	if r.Clock == "" || r.Clock != clock.Timeline() {
		return false
	}
	began := time.Duration(r.Began)
	age := clock.Boot() - began
	return age >= 0 && (began >= asked || !r.Failed && age < f.MaxAge)
}

func (r flightResult) unpack() ([]byte, error) {
	if r.Failed {
		return nil, fmt.Errorf("%w: %s", ErrShared, r.Error)
	}
	return r.Result, nil
}

// read returns the last result, if there is one that can be believed.
func (f Flight) read() (r flightResult, ok bool) {
	file, err := openResult(f.path(".result"))
	if err != nil {
		return r, false
	}
	defer file.Close()
	most := 2*int64(f.maxBytes()) + maxLockRecord // base64, and the rest
	text, err := io.ReadAll(io.LimitReader(file, most))
	if err != nil || json.Unmarshal(text, &r) != nil || r.Format != flightFormat || len(r.Result) > f.maxBytes() {
		return flightResult{}, false
	}
	return r, true
}

// write replaces the last result as a whole.
func (f Flight) write(r flightResult) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	name := f.path(".new") // made only under the lock
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := createLike(f.path(".result"), name)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(name, f.path(".result"))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("reap: flight %s: %w", f.Name, err), os.Remove(name))
	}
	return nil
}

func (f Flight) path(ending string) string { return filepath.Join(f.Dir, f.Name+ending) }

func (f Flight) maxBytes() int {
	if f.MaxBytes == 0 {
		return 1 << 20
	}
	return f.MaxBytes
}

func (f Flight) validate() error {
	var errs []error
	if f.Dir == "" {
		errs = append(errs, errors.New("Dir is empty: name a folder on a disk of this host"))
	}
	if !isFileName(f.Name) {
		errs = append(errs, fmt.Errorf("Name is %.64q, want 1 to 100 letters, digits, '-', '_' or '.', and no '.' first", f.Name))
	}
	if f.MaxAge < 0 || f.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("MaxAge is %v and MaxBytes %d, want neither below 0", f.MaxAge, f.MaxBytes))
	}
	return errors.Join(errs...)
}

func isFileName(s string) bool {
	if s == "" || len(s) > 100 || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
