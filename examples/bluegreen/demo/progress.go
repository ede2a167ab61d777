package demo

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// progress tells people how far it is.
type progress struct {
	began time.Time
	mu    sync.Mutex
	out   io.Writer
}

// say writes one line, with the seconds since the start. When that fails nobody
// is left to tell.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.out, "%6.2fs  %s\n", time.Since(p.began).Seconds(), fmt.Sprintf(format, args...))
}

// print writes text as it is.
func (p *progress) print(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.out, text)
}

// glance is how often something is looked at that is waited for.
const glance = 20 * time.Millisecond

// rest waits for d. It returns false where ctx ended first.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// await asks again and again until the answer is nil. When ctx ends first, it
// returns the last answer.
func await(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if !rest(ctx, glance) {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}
