package driver

import "context"

type adopting struct{}

// Adopting returns a context for calls on behalf of a person who says that the
// catalog was restored or moved on purpose. A Store that knows where a token
// was written refuses to go on elsewhere, except under such a context; the
// claim that is made under it says where the catalog is from then on.
func Adopting(ctx context.Context) context.Context {
	return context.WithValue(ctx, adopting{}, true)
}

// Adopts reports whether ctx, or one that it was made from, came from
// [Adopting].
func Adopts(ctx context.Context) bool { return ctx.Value(adopting{}) != nil }
