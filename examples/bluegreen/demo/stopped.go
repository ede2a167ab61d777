package demo

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/internal/storeurl"
)

const (
	maxTries  = 10                     // to stop blue where it blocks nobody
	probeWait = 700 * time.Millisecond // within which a claim must be possible
)

// stopBlue stops blue between two writes. A process that is stopped in the
// middle of a write transaction of SQLite holds its lock, and no claim is
// possible until it goes on or is killed: then blue goes on for a moment, and
// is stopped again.
func (r *round) stopBlue(ctx context.Context) error {
	var blocked error
	for r.tries = 1; r.tries <= maxTries; r.tries++ {
		if blocked = r.stopIdle(ctx); blocked == nil {
			return nil
		}
		r.progress.say("  ... no claim is possible, blue goes on for a moment: %v", blocked)
		if err := r.blue.signal(syscall.SIGCONT); err != nil {
			return err
		}
		if !rest(ctx, 5*glance) {
			break
		}
	}
	return fmt.Errorf("no claim was possible in %d tries: %w", r.tries, blocked)
}

// stopIdle stops blue while no client's write is under way, and returns why no
// claim is possible then. The clients write on, to a process that is stopped.
func (r *round) stopIdle(ctx context.Context) error {
	release := r.load.hold()
	r.mark('S')
	err := r.blue.signal(syscall.SIGSTOP)
	rest(ctx, glance) // it takes a moment to reach every thread
	release()
	if err != nil {
		return err
	}
	return r.claimable(ctx)
}

// claimable begins a claim and abandons it: the store is as it was before.
func (r *round) claimable(ctx context.Context) error {
	store, err := storeurl.Open(ctx, r.url, storeurl.Config{})
	if err != nil {
		return err
	}
	defer store.Close()
	bounded, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	claiming, err := store.Claim(bounded)
	if err != nil {
		return err
	}
	claiming.Abandon()
	return nil
}

// storeName names the round's store without a secret.
func (r *round) storeName(ctx context.Context) (string, error) {
	store, err := storeurl.Open(ctx, r.url, storeurl.Config{})
	if err != nil {
		return "", err
	}
	return store.String(), store.Close()
}
