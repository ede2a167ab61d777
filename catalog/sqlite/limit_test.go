package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/exitcodes"
)

// atItsLimit holds the catalog, and opens it again and again with fewer
// descriptors than that takes, and with descriptors that come and go.
func atItsLimit(path string) error {
	ctx := context.Background()
	c, err := claimAndCommit(ctx, path)
	if err != nil {
		return err
	}
	g, err := newGuard(path)
	if err != nil {
		return err
	}
	const most = 64
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}); err != nil {
		return err
	}
	fill := func() (held []int) {
		for {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return held
			}
			held = append(held, fd)
		}
	}
	failed := 0
	try := func() error {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if _, err := look(ctx, path); err != nil {
			failed++
			if d := exitcodes.Of(err); d != exitcodes.Retry {
				return fmt.Errorf("%v, and want retry: %w", d, err)
			}
		}
		return g.check()
	}
	held := fill()
	for range 10 { // one more is free in each round
		for range 5 {
			if err := try(); err != nil {
				return err
			}
		}
		_ = unix.Close(held[len(held)-1])
		held = held[:len(held)-1]
	}
	if failed == 0 {
		return errors.New("no open has failed")
	}
	held = append(held, fill()...)
	_ = unix.Close(held[0])
	_ = unix.Close(held[1])
	ctxChurn, stop := context.WithCancel(ctx)
	defer stop()
	for range 3 { // sockets come and go
		go func() {
			for ctxChurn.Err() == nil {
				if fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
					_ = unix.Close(fd)
				}
			}
		}()
	}
	for range 300 {
		if err := try(); err != nil {
			return err
		}
	}
	stop()
	for _, fd := range held[2:] {
		_ = unix.Close(fd)
	}
	return errors.Join(put(ctx, c, "last", nil), c.Confirm(ctx), g.check())
}

func TestAProcessAtItsLimitOfOpenFilesLosesNoLock(t *testing.T) {
	t.Parallel()
	for _, env := range []string{"", posix} {
		out, err := child(t, "limit", filepath.Join(t.TempDir(), "c.db"), env).CombinedOutput()
		require.NoError(t, err, "%s %s", env, out)
	}
}
