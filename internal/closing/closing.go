// Package closing has a context that says how long there is to return, once it has
// ended.
package closing

import (
	"context"
	"sync/atomic"
	"time"
)

// A Context is one that has a deadline of its own as soon as it has ended: by when
// whoever works under it must have returned.
type Context struct {
	context.Context
	by  func() time.Time
	set atomic.Pointer[time.Time]
}

// New returns a Context that ends with ctx. By is called once it has ended, before
// anybody is told a deadline. Zero: there is none.
func New(ctx context.Context, by func() time.Time) *Context { return &Context{Context: ctx, by: by} }

type key struct{}

// Value returns the Context itself to [Left].
func (c *Context) Value(k any) any {
	if k == (key{}) {
		return c
	}
	return c.Context.Value(k)
}

// Left is how long there is until whoever works under ctx must have returned, if a
// Context above it has ended; else 0.
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

// Deadline returns the deadline of the context that was wrapped, and that of its own
// once it has ended. It stays what it was at the first call since then.
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
