package identity

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// pace is how often Watch looks if the system does not tell of an end.
const pace = 100 * time.Millisecond

// ErrUnseen means that nothing can be known of a process from here.
var ErrUnseen = errors.New("identity: the process can't be watched")

// Watch waits until p has ended, and says how that is known. On Linux the kernel
// tells of it, to within milliseconds, by a descriptor of the process (pidfd, Linux
// 5.3). If there is none, Watch looks ten times a second. It returns an error that
// wraps [ErrUnseen] if this process does not see the pids that p is of, or is p
// itself, and else only the cause of the end of ctx.
func (p Process) Watch(ctx context.Context) (why string, err error) {
	return system().watch(ctx, p, awaitEnd)
}

// watch waits by await, which returns nil once the process that has a pid, or had it
// when await was called, has ended. P had the pid before that process, or is it, so
// that p has ended too.
func (v view) watch(ctx context.Context, p Process, await func(ctx context.Context, pid int) error) (why string, err error) {
	for {
		me, err := v.comparable(p)
		if err == nil && p == me {
			err = errors.New("it is this process")
		}
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrUnseen, err)
		}
		if proven, why := v.ended(p); proven {
			return why, nil
		}
		if await(ctx, p.pid) == nil {
			return fmt.Sprintf("process %d has ended", p.pid), nil
		}
		select {
		case <-time.After(pace):
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}
