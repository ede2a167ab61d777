package work

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
)

const (
	// inboxGap is the least time from one look at the inbox to the next. It doubles up
	// to inboxGaps while looks find nothing: some stores wake a holder after each of
	// its own commits.
	inboxGap  = 2 * time.Millisecond
	inboxGaps = 64 * time.Millisecond

	// inboxBatch is how many requests are read at once, and share one commit.
	inboxBatch = 256

	// inboxLook is how long one look goes on. The next one begins with the first
	// requests again, so that an operator's don't wait for very many others.
	inboxLook = time.Second
)

// An inboxReader acts upon requests, for the dispatcher.
type inboxReader struct {
	*dispatcher
	board *catalog.Board
	taken taken
	stale bool // taken must be read anew: nobody knows whether a commit has landed
	found bool // the look found requests

	// Of requests that were done in part:
	moving map[string]int // how many jobs each has reassigned
	again  bool           // the look did some, and the next one goes on

	// A sweep goes once through the inbox, in one look or in several.
	behind string          // the key that it has come to; empty: a new one begins
	full   map[string]bool // the kinds that had no room since it began
}

// readInbox acts upon requests until ctx ends.
func (d *dispatcher) readInbox(ctx context.Context) {
	if d.cfg.Poll < 0 {
		return
	}
	in := &inboxReader{dispatcher: d, board: d.c.Board(), stale: true, moving: map[string]int{}}
	wake := make(chan struct{}, 1)
	nudge := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { in.board.Watch(ctx, nudge) })
	defer wg.Wait()
	poll := time.NewTicker(d.cfg.Poll)
	defer poll.Stop()
	failing, gap := false, inboxGap
	for {
		begun := time.Now()
		in.found = false
		more, err := in.look(ctx)
		if gap = min(2*gap, inboxGaps); in.found {
			gap = inboxGap
		}
		if err != nil && !failing && ctx.Err() == nil {
			d.cfg.Logger.Warn("the inbox was not emptied", "err", err)
		}
		failing = err != nil
		if more {
			nudge()
		}
		select {
		case <-wake:
		case <-poll.C:
		case <-ctx.Done():
			return
		}
		rest := time.NewTimer(gap - time.Since(begun))
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return
		}
	}
}

// look acts upon the requests in the inbox, and removes each once that is durable.
// More says that there are others, which the look had no time for.
func (in *inboxReader) look(ctx context.Context) (more bool, err error) {
	end := time.Now().Add(inboxLook)
	in.again = false
	if in.behind == "" {
		in.full = map[string]bool{}
	}
	for after := ""; ; {
		page, more, err := in.read(ctx, after)
		if err == nil {
			err = in.act(ctx, page, nil)
		}
		switch {
		case err != nil:
			return false, err
		case !more:
			in.behind = ""
			return in.again, nil
		}
		after = max(page[len(page)-1].Key, in.behind)
		if in.behind = after; time.Now().After(end) {
			return true, nil
		}
	}
}

// read reads the next requests.
func (in *inboxReader) read(ctx context.Context, after string) (page []driver.Note, more bool, err error) {
	if in.stale {
		if err := in.c.View(func(r *catalog.Reader) error { return in.taken.load(r) }); err != nil {
			return nil, false, err
		}
		in.stale = false
	}
	page, more, err = in.board.NotesAfter(ctx, InboxPrefix, after, inboxBatch)
	if err == nil {
		in.taken.saw(after, page, more)
		in.found = in.found || len(page) > 0
	}
	return page, more, err
}

// errNothing ends an Update that has nothing to write.
var errNothing = errors.New("work: no request is new")

// act acts upon some requests in one commit, and removes those that are done. If one
// was acted upon before, it is only removed. If refusal is not nil, it is the answer to
// those that are new.
func (in *inboxReader) act(ctx context.Context, notes []driver.Note, refusal error) error {
	var done, fresh []driver.Note
	var moved map[string]int
	activate := false
	var entry string
	err := in.c.Update(in.writes, func(tx *catalog.Tx) (err error) {
		done, fresh, moved, activate = nil, nil, map[string]int{}, false
		for _, n := range notes {
			ref := strings.TrimPrefix(n.Key, InboxPrefix)
			if CheckRef(ref) != nil { // nothing can be noted of it: it stays, and Inbox counts it
				continue
			}
			known, err := in.known(tx, ref)
			if err != nil {
				return err
			}
			if known {
				done = append(done, n)
				continue
			}
			rec, active, err := in.perform(tx, ref, n.Value, refusal)
			if errors.Is(err, errMore) {
				moved[ref] = rec.moved
			}
			if errors.Is(err, ErrFull) || errors.Is(err, errMore) {
				continue
			}
			if err == nil {
				err = reply(tx, ref, rec)
			}
			if err != nil {
				return err
			}
			activate = activate || active
			done, fresh = append(done, n), append(fresh, n)
		}
		switch {
		case len(fresh) > 0:
			entry, err = in.taken.write(tx, fresh)
		case len(moved) == 0:
			err = errNothing
		}
		return err
	})
	switch {
	case err == nil:
		in.wrote(entry, fresh, moved)
	case errors.Is(err, driver.ErrTooLarge) && len(notes) > 1:
		if err := in.act(ctx, notes[:len(notes)/2], refusal); err != nil {
			return err
		}
		return in.act(ctx, notes[len(notes)/2:], refusal)
	case errors.Is(err, driver.ErrTooLarge) && refusal == nil: // else it would hold up all others for ever
		return in.act(ctx, notes, err)
	case !errors.Is(err, errNothing):
		in.stale = true
		return err
	}
	if activate {
		_, _ = in.Pass(ctx)
	}
	return in.board.RemoveNotes(ctx, done)
}

// perform does what a request asks for, unless it is refused.
func (in *inboxReader) perform(tx *catalog.Tx, ref string, raw []byte, refusal error) (rec replyRecord, activate bool, err error) {
	if refusal != nil {
		return replyRecord{Error: clip(refusal.Error(), maxError)}, false, nil
	}
	rec, activate, err = perform(tx, ref, raw, in.full)
	if err == nil && rec.Text == "" && rec.Error == "" {
		rec.Text = fmt.Sprintf("%d jobs reassigned", in.moving[ref]+rec.moved)
	}
	return rec, activate, err
}

// wrote notes what a commit has done of the requests.
func (in *inboxReader) wrote(entry string, fresh []driver.Note, moved map[string]int) {
	if len(fresh) > 0 {
		in.taken.wrote(entry, fresh)
	}
	for _, n := range fresh {
		delete(in.moving, strings.TrimPrefix(n.Key, InboxPrefix))
	}
	for ref, n := range moved {
		in.moving[ref] += n
		in.again = true
	}
}

// known reports whether a request was acted upon before.
func (in *inboxReader) known(s catalog.Source, ref string) (bool, error) {
	if in.taken.has(ref) {
		return true, nil
	}
	_, found, err := replies.Get(s, ref)
	return found, err
}
