package kv

import (
	"context"
	"errors"
	"time"

	"github.com/tidwall/redcon"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

// A unit is what is never divided: one command, or those of a transaction.
type unit struct {
	ops  []op
	exec bool // answered as one array
}

// answered is a unit whose reply is known.
func answered(reply []byte) unit {
	return unit{ops: []op{{local: func(*session) []byte { return reply }}}}
}

// A batch is a run of units that share one Update or one View.
type batch []unit

// cut returns how many units fit into one batch: one at least.
func (c Config) cut(units []unit) int {
	var ops, size int
	for i, u := range units {
		ops += len(u.ops)
		for _, o := range u.ops {
			size += o.bytes
		}
		if i > 0 && (ops > c.MaxBatch || size > c.MaxBatchBytes) {
			return i
		}
	}
	return len(units)
}

// run runs units in order and appends their replies.
func (s *session) run(ctx context.Context, units []unit) {
	for len(units) > 0 {
		n := s.server.cfg.cut(units)
		s.runBatch(ctx, units[:n], time.Now().Add(s.server.cfg.HoldTimeout))
		units = units[n:]
		if len(s.out) > maxBuffered {
			_ = s.send() // a failure stays, and ends the session behind the last unit
		}
	}
}

// runBatch runs a batch wherever that can be done until late, and one that the
// store finds too large in two halves.
func (s *session) runBatch(ctx context.Context, b batch, late time.Time) {
	data, writes := b.needs()
	if !data {
		s.replyAll(b, nil, nil)
		return
	}
	for {
		p, err := s.server.admit(ctx, late)
		switch {
		case err != nil:
			s.replyAll(b, nil, err)
			return
		case p.leader != "":
			s.forward(ctx, p.leader, b, late)
			return
		}
		replies, err := s.server.execute(ctx, p.term, b, writes)
		switch {
		case errors.Is(err, driver.ErrTooLarge) && len(b) > 1:
			s.runBatch(ctx, b[:len(b)/2], late)
			s.runBatch(ctx, b[len(b)/2:], late)
			return
		case nothingWritten(err) && s.server.outlived(ctx, p.term, late):
			// The token was lost before the batch: whoever leads can have it.
		default:
			s.replyAll(b, replies, err)
			return
		}
	}
}

// nothingWritten reports whether a batch failed, without any effect, only because
// the token is another process's or this one stops leading.
func nothingWritten(err error) bool {
	stopped := errors.Is(err, fence.ErrFenced) || errors.Is(err, errDrained) || errors.Is(err, catalog.ErrClosed)
	return stopped && catalog.OutcomeOf(err) != driver.Unknown
}

func (s *session) replyAll(b batch, replies [][]byte, err error) {
	for _, u := range b {
		replies = s.reply(u, replies, err)
	}
}

// reply appends the reply to u and returns the replies that are left to be used.
func (s *session) reply(u unit, replies [][]byte, err error) [][]byte {
	if err != nil && u.exec && u.touchesData() {
		_, writes := batch{u}.needs()
		s.out = append(s.out, failure(err, writes)...)
		return replies
	}
	if u.exec {
		s.out = redcon.AppendArray(s.out, len(u.ops))
	}
	for _, o := range u.ops {
		switch {
		case o.local != nil:
			s.out = append(s.out, o.local(s)...)
		case err != nil:
			s.out = append(s.out, failure(err, o.writes)...)
		default:
			s.out = append(s.out, replies[0]...)
			replies = replies[1:]
		}
	}
	return replies
}

func (u unit) touchesData() bool {
	for _, o := range u.ops {
		if o.data != nil {
			return true
		}
	}
	return false
}

// needs says whether a batch has to do with the data, and whether it writes.
func (b batch) needs() (data, writes bool) {
	for _, u := range b {
		for _, o := range u.ops {
			data = data || o.data != nil
			writes = writes || o.writes
		}
	}
	return data, writes
}

// apply runs the ops and returns the replies of those that use the data.
func (b batch) apply(a *access) (replies [][]byte, err error) {
	for _, u := range b {
		for _, o := range u.ops {
			if o.data != nil {
				replies = append(replies, o.data(a))
			}
		}
	}
	return replies, a.err
}

// execute runs a batch in a term that it was admitted to. An error concerns the
// whole batch: none of its commands has an answer, or any effect, unless the
// outcome is unknown.
func (s *Server) execute(ctx context.Context, t *term, b batch, writes bool) ([][]byte, error) {
	defer t.running.Done()
	ctx, cancel := t.bound(ctx)
	defer cancel()
	run := s.view
	if writes {
		run = s.update
	}
	done, err := run(ctx, t.catalog, b)
	if err != nil {
		return nil, err
	}
	if s.cfg.ConfirmReads && !done.changed {
		err = t.catalog.Confirm(ctx)
	}
	return done.replies, err
}

// A result is what became of a batch.
type result struct {
	replies [][]byte
	changed bool // there was a commit, and it has landed
}

// update runs a batch with writes. What its function leaves behind is looked at
// only after a success: where the waiting was cut short it may still be running.
func (s *Server) update(ctx context.Context, c *catalog.Catalog, b batch) (*result, error) {
	r := new(result)
	err := c.Update(ctx, func(tx *catalog.Tx) (err error) {
		a := &access{data: s.data, source: tx, tx: tx, cursors: s.cursors}
		r.replies, err = b.apply(a)
		r.changed = a.changed
		return err
	})
	return r, err
}

// view runs a batch of reads.
func (s *Server) view(_ context.Context, c *catalog.Catalog, b batch) (*result, error) {
	r := new(result)
	err := c.View(func(reader *catalog.Reader) (err error) {
		r.replies, err = b.apply(&access{data: s.data, source: reader, cursors: s.cursors})
		return err
	})
	return r, err
}
