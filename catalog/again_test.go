package catalog_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
)

// lastWord is a store that fails in passing, and then, once the reader's time is
// over, says something that no further try mends.
type lastWord struct {
	driver.Store
	over context.CancelFunc
	said error
	n    int
}

func (l *lastWord) Head(ctx context.Context) (driver.Head, error) {
	if l.n++; l.n == 1 {
		return driver.Head{}, &driver.Error{Class: driver.Class{Disposition: exitcodes.Retry}, Op: "head", Err: context.DeadlineExceeded}
	}
	l.over()
	return driver.Head{}, l.said
}

func TestAReadThatFailsForGoodSaysSoThoughItsTimeIsOver(t *testing.T) {
	t.Parallel()
	for want, said := range map[exitcodes.Disposition]error{
		exitcodes.Panic: exitcodes.With(driver.ErrCorrupt, exitcodes.Panic),
		exitcodes.Retry: context.Canceled, // of which the failure before says why
	} {
		ctx, over := context.WithCancel(t.Context())
		_, err := catalog.ReadHead(ctx, &lastWord{Store: memory.New(), over: over, said: said}, process(0, "reader"))
		require.Equal(t, want, exitcodes.Of(err))
	}
}
