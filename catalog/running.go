package catalog

import (
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
)

// A running is the caller's function that runs now, so that a call of that
// function which would wait for itself is refused instead. A call that the
// function makes on another goroutine can't be told from anybody else's.
type running struct {
	fn    atomic.Pointer[func(*Tx) error] // nil while none runs
	count atomic.Uint64                   // of the functions that were begun
}

func (r *running) begin(fn *func(*Tx) error) {
	r.count.Add(1)
	r.fn.Store(fn)
}

func (r *running) end() { r.fn.Store(nil) }

// isCaller reports whether the function that runs is on the stack of the calling
// goroutine, called by transact. Go does not say which goroutine that is at a
// price that a commit could pay; while nothing runs, the question costs nothing.
func (r *running) isCaller() bool {
	fn := r.fn.Load()
	if fn == nil {
		return false
	}
	want, by := nameOf(*fn), nameOf(transact)
	pcs := make([]uintptr, 64)
	for skip, called := 2, ""; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		if n == 0 {
			return false
		}
		frames := runtime.CallersFrames(pcs[:n])
		for more := true; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if f.Function == by && called == want {
				return true
			}
			called = f.Function
		}
	}
}

// nameOf returns the name of a function as it is on a stack: a method value has
// one of its own, and is not there itself.
func nameOf(fn any) string {
	return strings.TrimSuffix(runtime.FuncForPC(reflect.ValueOf(fn).Pointer()).Name(), "-fm")
}
