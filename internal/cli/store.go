package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/storeurl"
)

const (
	defaultTimeout = 10 * time.Second
	longestCall    = 5 * time.Second // of one call to the store, by default
)

// withStore opens the store that the command line or the environment names,
// calls fn with it, and closes it.
func (a *app) withStore(ctx context.Context, fn func(context.Context, driver.Store) error) (err error) {
	if err := storeurl.CheckArgument(a.store); err != nil {
		return err
	}
	store, err := storeurl.Open(ctx, a.store, storeurl.Config{Getenv: a.env.Getenv})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	a.name = store.String()
	return fn(ctx, catalog.Witnessed(store))
}

// withReadStore is withStore for a command that only shows something. If nobody ever
// claimed the catalog and others stand beside it, it says so on standard error: the name
// may be mistyped.
func (a *app) withReadStore(ctx context.Context, fn func(context.Context, driver.Store) error) error {
	return a.withStore(ctx, func(ctx context.Context, store driver.Store) error {
		if err := fn(ctx, store); err != nil {
			return err
		}
		bounded, cancel := context.WithTimeout(ctx, a.timeout)
		defer cancel()
		if head, err := store.Head(bounded); err == nil && head.IsZero() { // if it can't be asked, the answer stands
			a.warn(othersOf(bounded, store).text(), store)
		}
		return nil
	})
}

// warn says on standard error what others of an empty catalog there are, if any.
func (a *app) warn(others string, store driver.Store) {
	if others == "" {
		return
	}
	text := "nobody ever claimed " + store.String() + others
	if a.json {
		_ = json.NewEncoder(a.env.Stderr).Encode(map[string]string{"warning": text, "store": a.name}) // the answer was given
		return
	}
	_, _ = fmt.Fprintf(a.env.Stderr, "fencepost: %s\n", text)
}

// bounded calls fn under a deadline. Where that is what ended fn, the error
// asks for a later try: the store was too slow, or not there.
func bounded(ctx context.Context, d time.Duration, fn func(context.Context) error) error {
	short, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := fn(short)
	if err == nil || short.Err() == nil || ctx.Err() != nil || exitcodes.Of(err) > exitcodes.Retry {
		return err
	}
	return exitcodes.With(fmt.Errorf("not done within %v: %w", d, err), exitcodes.Retry)
}

// config bounds what the library tries by the time that the command has.
func (a *app) config(timeout time.Duration) catalog.Config {
	return catalog.Config{StoreTimeout: min(timeout, a.storeTimeout), RetryBudget: timeout}
}
