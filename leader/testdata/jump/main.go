// Jump runs a holder, a standby and a promotion while its wall clock jumps, and
// ends with 0 where that changed nothing. Its test builds it with such a clock.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/leader"
)

const lease = 600 * time.Millisecond

func main() {
	if err := run(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run() error {
	if err := jumps(); err != nil {
		return err
	}
	store := memory.New()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var works atomic.Int64
	start := func(catalogConfig catalog.Config) (*leader.Leader, error) {
		l, err := leader.New(store.Open(), leader.Config{Catalog: catalogConfig, Lease: lease, Poll: 10 * time.Millisecond})
		if err != nil {
			return nil, err
		}
		wg.Go(func() {
			_ = l.Run(ctx, func(ctx context.Context, _ *leader.Term) error {
				works.Add(1)
				<-ctx.Done()
				return context.Cause(ctx)
			})
		})
		return l, nil
	}
	holder, err := start(catalog.Config{Generation: 1})
	if err != nil {
		return err
	}
	if err := await(holder, leader.Leading); err != nil {
		return err
	}
	standby, err := start(catalog.Config{Generation: 1})
	if err != nil {
		return err
	}
	<-time.After(5 * lease)
	if holder.Status().Phase != leader.Leading || standby.Status().Phase != leader.ReadyToPromote || works.Load() != 1 || !holder.Held() {
		return fmt.Errorf("the holder is %v, the standby %v, after %d works", holder.Status().Phase, standby.Status().Phase, works.Load())
	}
	if _, err := leader.Promote(ctx, store, catalog.Config{}, 2, leader.PromoteOptions{By: "test", Force: true}); err != nil {
		return err
	}
	green, err := start(catalog.Config{Generation: 2})
	if err != nil {
		return err
	}
	return errors.Join(await(green, leader.Leading), await(holder, leader.Superseded), await(standby, leader.Superseded))
}

// jumps makes sure that the wall clock does.
func jumps() error {
	var least, most time.Time
	for range 100 {
		now := time.Now().Round(0) // without the monotonic reading
		if least.IsZero() || now.Before(least) {
			least = now
		}
		if now.After(most) {
			most = now
		}
		<-time.After(10 * time.Millisecond)
	}
	if most.Sub(least) < 90*time.Minute {
		return fmt.Errorf("the wall clock went from %v to %v only: it does not jump", least, most)
	}
	return nil
}

func await(l *leader.Leader, phase leader.Phase) error {
	for range 3000 {
		if l.Status().Phase == phase {
			return nil
		}
		<-time.After(10 * time.Millisecond)
	}
	return fmt.Errorf("a process is %v (%s), and not %v", l.Status().Phase, l.Status().Reason, phase)
}
