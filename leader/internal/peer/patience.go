package peer

import (
	"context"
	"time"
)

// A patience measures for how long a holder has not answered while the store
// did. It has no clock: it is given readings of one.
type patience struct {
	limit  time.Duration
	most   time.Duration // counted between two reads
	mark   time.Duration // when the last read that succeeded was answered
	reads  bool          // there was one, and none has failed since
	length time.Duration // so far
}

// observe takes one read of the store, and reports whether the limit is reached.
// It counts the time from the answer to the last read until this one was sent, if
// both succeeded, and no more of it than most: a process that was stopped in
// between could have received no answer.
func (p *patience) observe(sent, answered time.Duration, ok bool) (over bool) {
	if ok && p.reads {
		p.length += min(sent-p.mark, p.most)
	}
	p.mark, p.reads = answered, ok
	return p.length >= p.limit
}

// How often the store is read while an answer is awaited: ten times until the
// limit, and at least every look.
const (
	looks = 10
	look  = 50 * time.Millisecond
)

// exhaust returns true once the holder had limit to answer, and false if ctx
// ends before. Reads reads the store once; nil means that the store counts as
// answering. A holder that answers before the first read is due costs none.
func exhaust(ctx context.Context, limit time.Duration, reads func(context.Context) error) bool {
	pause := min(limit/looks, look)
	p, began := patience{limit: limit, most: 2 * pause}, time.Now()
	tick := time.NewTicker(max(pause, time.Nanosecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
		sent := time.Since(began)
		ok := reads == nil || reads(ctx) == nil
		if p.observe(sent, time.Since(began), ok) {
			return ctx.Err() == nil
		}
	}
}
