package reap

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// acquire takes the lock of the host.
func (r *run) acquire(ctx context.Context) *end {
	lock := HostLock{Path: r.p.Lock, Token: r.now}
	held, err := lock.TryLock()
	if errors.Is(err, ErrLocked) {
		if r.p.SkipIfLocked {
			return &end{stop: StoppedLocked}
		}
		held, err = r.await(ctx, lock, err)
	}
	if cause := context.Cause(ctx); cause != nil && held == nil {
		return &end{StoppedContext, cause}
	}
	if errors.Is(err, ErrLocked) {
		return &end{stop: StoppedWaited}
	}
	if err != nil {
		return &end{StoppedLock, err}
	}
	r.held = held
	if done := held.last.Ended; r.covers(done) {
		if !done.Ripe.IsZero() {
			r.report.Ripe = done.Ripe.Add(r.p.MinAge - done.MinAge)
		}
		return &end{StoppedShared, done.failure()}
	}
	if rest := held.last.Paused.left(r.id); rest > 0 {
		if r.p.SkipIfLocked {
			return &end{stop: StoppedLocked}
		}
		return r.wait(ctx, rest+headStart, held.last.Paused.Why, "another process of this host pauses before its next call")
	}
	if held.last.Caller != r.id {
		r.stale = true
		held.mine.Caller = r.id
		held.write()
	}
	return nil
}

// paced reports whether the throttle's pause before the next call has passed.
func (r *run) paced() bool {
	return r.waited == WaitPace || r.waited == WaitLimited || r.waited == WaitRetryAfter
}

// await waits for the lock until MaxWait is spent.
func (r *run) await(ctx context.Context, lock HostLock, why error) (*Held, error) {
	rest := r.p.MaxWait - r.spent
	r.tell(Wait{Reason: WaitLocked, For: rest, Detail: why.Error()})
	began := time.Now()
	defer func() { r.slept(WaitLocked, time.Since(began)) }()
	ctx, cancel := context.WithTimeout(ctx, rest)
	defer cancel()
	return lock.Lock(ctx)
}

// conflict does what the strategy says about an item that was gone.
func (r *run) conflict(ctx context.Context, item Item) *end {
	r.conflicts++
	if r.p.OnConflict == Yield {
		return &end{stop: StoppedYielded}
	}
	if r.conflicts >= r.p.MaxConflicts {
		return &end{stop: StoppedConflicts}
	}
	if e := r.wait(ctx, r.p.Backoff.Delay(r.conflicts-1), WaitConflict, fmt.Sprintf("%.64q was already deleted", item.ID)); e != nil {
		return e
	}
	if e := r.room(); e != nil {
		return e
	}
	r.stale = true
	return nil
}

// room returns an end if StopUnderLimit asks for it.
func (r *run) room() *end {
	if r.p.OnConflict == StopUnderLimit && r.conflicts > 0 && r.result().Present() < r.p.Limit {
		return &end{stop: StoppedRoom}
	}
	return nil
}

// refused waits after a call that the server refused because of too many.
func (r *run) refused(ctx context.Context, limited *LimitedError) *end {
	r.report.Limited++
	d, why := r.p.Throttle.Learn(Answer{Limited: true, Remaining: -1, RetryAfter: limited.RetryAfter})
	r.told()
	return r.pause(ctx, d, why, limited.Error())
}

// pause waits before the next call of the server. The other processes of the host wait, too.
func (r *run) pause(ctx context.Context, d time.Duration, why WaitReason, detail string) *end {
	r.sharePause(d, why)
	return r.wait(ctx, d, why, detail)
}

// learn takes in that a call went through.
func (r *run) learn() {
	remaining := -1
	if r.src.Remaining != nil {
		remaining = r.src.Remaining()
	}
	r.p.Throttle.Learn(Answer{Remaining: remaining})
}

// wait releases the lock and waits. The next step takes the lock again.
func (r *run) wait(ctx context.Context, d time.Duration, why WaitReason, detail string) *end {
	if d > r.p.MaxWait-r.spent {
		return &end{stop: StoppedWaited}
	}
	if r.held != nil {
		err := r.held.Unlock()
		r.held = nil
		if err != nil {
			return &end{StoppedLock, err}
		}
	}
	r.tell(Wait{Reason: why, For: d, Detail: detail})
	began := time.Now()
	err := sleep(ctx, d)
	r.slept(why, time.Since(began))
	r.waited = why
	if err != nil {
		return &end{StoppedContext, err}
	}
	return nil
}

func (r *run) tell(w Wait) {
	if r.p.OnWait != nil {
		w.Count, w.Limit, w.Strategy = r.result().Present(), r.p.Limit, r.p.OnConflict
		r.p.OnWait(w)
	}
}

func (r *run) slept(why WaitReason, d time.Duration) {
	r.spent += d
	w := r.report.Waits[why]
	r.report.Waits[why] = Waited{w.Times + 1, w.Slept + d}
	r.told()
}
