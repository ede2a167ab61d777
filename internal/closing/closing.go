// Package closing has a context that gets a deadline when it ends: the time by which its
// user must have returned.
package closing

import (
	"context"
	"sync/atomic"
	"time"
)

// A Context has a deadline of its own once it has ended: the time by which its user must
// have returned.
type Context struct {
	context.Context
	by  func() time.Time
	set atomic.Pointer[time.Time]
}

// New returns a Context that ends with ctx. By returns the deadline, and is called after
// the end only. Zero: there is none.
func New(ctx context.Context, by func() time.Time) *Context { return &Context{Context: ctx, by: by} }

type key struct{}

// Value returns the Context itself to [Left].
func (c *Context) Value(k any) any {
	if k == (key{}) {
		return c
	}
	return c.Context.Value(k)
}

// Left returns the time until the deadline of the nearest Context that ctx is derived
// from; 0 if that has not ended, has no deadline, or there is none.
func Left(ctx context.Context) time.Duration {
	c, ok := ctx.Value(key{}).(*Context)
	if !ok || c.Err() == nil {
		return 0
	}
	by, ok := c.Deadline()
	if !ok {
		return 0
	}
	return max(0, time.Until(by))
}

// Deadline returns the deadline of the wrapped context until the end, and its own after
// that. The first call after the end fixes it.
func (c *Context) Deadline() (by time.Time, ok bool) {
	if c.Err() == nil {
		return c.Context.Deadline()
	}
	if c.set.Load() == nil {
		first := c.by()
		c.set.CompareAndSwap(nil, &first)
	}
	by = *c.set.Load()
	return by, !by.IsZero()
}
