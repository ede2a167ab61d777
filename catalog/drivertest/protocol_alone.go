package drivertest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
)

// aloneCases are about Updates whose context has no end: where nobody else
// writes, they commit on their caller's goroutine.
func aloneCases() []protocolCase {
	return []protocolCase{
		{"Updates share a commit of 4 MiB at most", sharedCommitsAreBounded},
		{"the answer to a commit of a caller that can't leave is lost: it is settled, and applied exactly once", aloneAnswerLost},
		{"the request of a commit of a caller that can't leave is lost: it is sent again, and applied exactly once", aloneRequestLost},
		{"a caller that can't leave is told that it was superseded", aloneSuperseded},
		{"callers that can leave and others at once: each Update sees those before it, and none is lost", aloneAndTogether},
		{"a function that ends the goroutine of a caller that can't leave writes nothing, and the handle goes on", aloneGoexit},
		{"a handle is closed only behind the Update of a caller that can't leave", aloneClose},
	}
}

func endless(s *scene) context.Context { return context.WithoutCancel(Context(s)) }

func aloneAnswerLost(s *scene)  { s.aloneLost(true) }
func aloneRequestLost(s *scene) { s.aloneLost(false) }

func (s *scene) aloneLost(lands bool) {
	st := s.store()
	h := &hooked{Store: st}
	type send = func(context.Context, driver.Head, driver.Record) error
	next := once[send](func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		if lands {
			s.check(st.Append(ctx, prior, rec))
		}
		return lost(st, "append")
	}, st.Append)
	h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error { return next()(ctx, prior, rec) }
	c := s.claimsOver(h, config(1))
	require.NoError(s, put(endless(s), c, "k", "v"))
	require.Equal(s, map[string]int{"k": 1}, s.commits())
}

func aloneSuperseded(s *scene) {
	c := s.claims(1)
	require.NoError(s, put(endless(s), c, "k", "mine"))
	s.claims(2)
	s.supersededBy("g2.e2", put(endless(s), c, "k", "late"))
	require.Equal(s, map[string]int{"k": 1}, s.commits())
}

func aloneAndTogether(s *scene) {
	const writers, each = 6, 20
	c := s.claims(1)
	var wg sync.WaitGroup
	for w := range writers {
		ctx := Context(s)
		if w%2 == 0 {
			ctx = endless(s)
		}
		wg.Go(func() {
			for range each {
				s.check(c.Update(ctx, increment))
			}
		})
	}
	wg.Wait()
	require.Equal(s, map[string]string{"n": fmt.Sprint(writers * each)}, s.contents(c))
	require.NoError(s, c.Close())
	require.Equal(s, map[string]int{"n": writers * each}, s.commits())
}

// increment raises the number at n.
func increment(tx *catalog.Tx) error {
	v, _, err := entries().Get(tx, "n")
	if err != nil {
		return err
	}
	n := 0
	if v != nil {
		if _, err := fmt.Sscan(string(v), &n); err != nil {
			return err
		}
	}
	return entries().Set(tx, "n", fmt.Append(nil, n+1))
}

func aloneGoexit(s *scene) {
	c := s.claims(1)
	var wg sync.WaitGroup
	wg.Go(func() {
		s.check(c.Update(endless(s), func(tx *catalog.Tx) error {
			s.check(entries().Set(tx, "gone", nil))
			runtime.Goexit()
			return nil
		}))
	})
	wg.Wait()
	s.put(c, "k", "v")
	require.NoError(s, put(endless(s), c, "k", "v"))
	require.NoError(s, c.Close())
	require.Equal(s, map[string]int{"k": 2}, s.commits())
}

func aloneClose(s *scene) {
	st := s.store()
	h := &hooked{Store: st}
	sent, answer := make(chan struct{}), make(chan struct{})
	h.onAppend = func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		close(sent)
		<-answer
		return st.Append(ctx, prior, rec)
	}
	c := s.claimsOver(h, config(1))
	written, closed := make(chan error, 1), make(chan error, 1)
	go func() { written <- put(endless(s), c, "k", "v") }()
	<-sent
	go func() { closed <- c.Close() }()
	begun := func() bool {
		ctx, cancel := context.WithTimeout(Context(s), 5*time.Millisecond)
		defer cancel()
		return errors.Is(put(ctx, c, "late", ""), catalog.ErrClosed)
	}
	require.Eventually(s, begun, Patience, time.Millisecond)
	require.Never(s, func() bool { return len(closed) > 0 }, quiet, quiet/4, "closed before the Update under way was answered")
	close(answer)
	require.NoError(s, <-written)
	require.NoError(s, <-closed)
	require.ErrorIs(s, put(endless(s), c, "late", ""), catalog.ErrClosed)
	require.Equal(s, map[string]int{"k": 1}, s.commits())
}

func sharedCommitsAreBounded(s *scene) {
	const writers, most = 16, 4 << 20
	st := s.store()
	held, goOn := make(chan struct{}), make(chan struct{})
	var largest atomic.Int64
	first := true
	h := &hooked{Store: st, onAppend: func(ctx context.Context, prior driver.Head, rec driver.Record) error {
		if first { // one writer commits at a time
			first = false
			close(held)
			<-goOn
		}
		largest.Store(max(largest.Load(), int64(len(rec.Payload))))
		return st.Append(context.WithoutCancel(ctx), prior, rec)
	}}
	cfg := config(1)
	cfg.StoreTimeout = 6 * Patience // it is the test that holds the first commit up
	c := s.claimsOver(h, cfg)
	var writing sync.WaitGroup
	writing.Go(func() { s.check(put(s.Context(), c, "first", "v")) })
	<-held
	value := string(pattern(1 << 20))
	for i := range writers {
		writing.Go(func() { s.check(put(s.Context(), c, fmt.Sprint(i), value)) })
	}
	close(goOn)
	writing.Wait()
	require.LessOrEqual(s, largest.Load(), int64(most))
	require.Len(s, s.contents(s.follows(0)), writers+1)
}
