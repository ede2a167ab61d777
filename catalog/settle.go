package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// notSent is the error of a commit that was not sent, since one before it could
// not be settled.
func notSent(err error) error {
	var earlier *outcomeError
	if errors.As(err, &earlier) {
		return earlier.err
	}
	return err
}

// settle makes sure that what was found in the head is durable, by a further
// commit, an empty one, whose answer arrives, or by a further write behind that.
// It is durable, too, if a claim that came in between was built on it.
func (c *Catalog) settle(e effort) error {
	for {
		readBack, err := c.appendNext(e, newPayload(), nil, c.state.Load())
		switch {
		case err == nil && readBack:
			if c.writeBehind(e) == nil {
				c.settled()
				return nil
			}
			if e.pace.wait(e.trying) {
				continue
			}
			return &outcomeError{exitcodes.With(fmt.Errorf("%s: commits land, and no answer to one has arrived", c.store), exitcodes.Retry)}
		case errors.Is(err, fence.ErrFenced):
			return c.builtUpon(e, err)
		case err != nil:
			return &outcomeError{err}
		}
		return nil
	}
}

// writeBehind makes a write whose answer is nil however often it is sent: of a
// commit that is always sent twice, no answer but a conflict ever arrives. It is
// fenced too, and ordered behind the last commit, which is durable with it if it
// is the newest still.
func (c *Catalog) writeBehind(e effort) error {
	c.compacts.writing.Lock()
	defer c.compacts.writing.Unlock()
	_, err := callStore(e.calls, c.cfg.StoreTimeout, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, c.store.Stage(ctx, c.claim, driver.NewID(), 0, nil) // Trim clears it away
	})
	if err == nil {
		_, _, err = c.ask(e)
	}
	return err
}

// builtUpon returns nil if the claim that fenced this handle was built on its last
// commit. That commit is durable then.
func (c *Catalog) builtUpon(e effort, fenced error) error {
	v, err := c.successor(e.anew())
	switch {
	case errors.Is(err, ErrLostCommit):
		c.alarm(err)
		return c.end.reason()
	case err != nil:
		return &outcomeError{fenced}
	case v == behind:
		return fenced
	}
	return nil
}
