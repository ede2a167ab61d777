package catalog

import (
	"encoding/binary"
	"runtime"
	"sync/atomic"

	"github.com/fencepost/fencepost/catalog/driver"
)

// A running is the caller's function that runs now, so that a call of that
// function which would wait for itself is refused instead. A call that the
// function makes on another goroutine can't be told from anybody else's.
type running struct {
	stamp stamp         // of the handle
	now   atomic.Bool   // one runs
	count atomic.Uint64 // of the functions that were begun
}

func newRunning() running { return running{stamp: newStamp()} }

// call calls fn, which runs until it has returned, however it does.
func (r *running) call(fn func()) {
	r.count.Add(1)
	r.now.Store(true)
	defer r.now.Store(false)
	r.stamp.beneath(fn)
}

// isCaller reports whether the function that runs is on the stack of the calling
// goroutine. While nothing runs, the question costs nothing.
func (r *running) isCaller() bool { return r.now.Load() && r.stamp.onStack() }

// A stamp is a number that can be left on the stack of a goroutine, and found
// there. Go does not say which goroutine it is that runs, at a price that a commit
// could pay; and the same function may run for another handle, so that its name
// says too little.
type stamp uint64

// newStamp returns a stamp of 16 digits that no other handle is likely to have.
func newStamp() stamp {
	id := driver.NewID()
	return 1<<31 | stamp(binary.BigEndian.Uint32(id[:]))
}

// beneath calls fn with s beneath it on the stack: a call for each digit of s to
// the base of four, the lowest first.
//
//go:noinline
func (s stamp) beneath(fn func()) {
	if s == 0 {
		fn()
		return
	}
	switch rest := s >> 2; s & 3 {
	case 0:
		digit0(rest, fn)
	case 1:
		digit1(rest, fn)
	case 2:
		digit2(rest, fn)
	case 3:
		digit3(rest, fn)
	}
}

//go:noinline
func digit0(rest stamp, fn func()) { rest.beneath(fn) }

//go:noinline
func digit1(rest stamp, fn func()) { rest.beneath(fn) }

//go:noinline
func digit2(rest stamp, fn func()) { rest.beneath(fn) }

//go:noinline
func digit3(rest stamp, fn func()) { rest.beneath(fn) }

// onStack reports whether s is on the stack of the calling goroutine.
func (s stamp) onStack() bool {
	pcs := make([]uintptr, 64)
	var found stamp
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		if n == 0 {
			return false
		}
		frames := runtime.CallersFrames(pcs[:n])
		for more := true; more; {
			var f runtime.Frame
			f, more = frames.Next()
			switch digit, part := partOf(f.Function); {
			case part && digit >= 0:
				found = found<<2 | stamp(digit)
			case part:
			case found == s:
				return true
			default:
				found = 0
			}
		}
	}
}

// partOf reports whether a function is part of a stamp, and which digit it is; -1
// if it is none.
func partOf(function string) (digit int, part bool) {
	switch function {
	case pkg + "stamp.beneath":
		return -1, true
	case pkg + "digit0":
		return 0, true
	case pkg + "digit1":
		return 1, true
	case pkg + "digit2":
		return 2, true
	case pkg + "digit3":
		return 3, true
	}
	return -1, false
}

// pkg is what the names of this package's functions begin with on a stack.
const pkg = "github.com/fencepost/fencepost/catalog."
