package demo

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fencepost/fencepost/fence"
)

// A fate is what a client knows of a write that was sent.
type fate uint8

const (
	acknowledged fate = iota
	refused           // the server said that nothing was written
	unknown           // the connection was cut, or the server did not know
)

// A write is one line of the ledger. Its key is used once.
type write struct {
	key    string
	token  fence.Token // of the server that the connection leads to
	stable bool        // went through the stable address
	fate   fate
	at     time.Time // when the fate was known
}

// valueOf returns the value that is written at a key.
func valueOf(key string) string { return "value of " + key }

// fateOf says what the answer to a write means.
func fateOf(err error) fate {
	text, answered := err.(refusal) //nolint:errorlint // do returns it bare
	switch {
	case err == nil:
		return acknowledged
	case answered && !strings.HasPrefix(string(text), "UNKNOWN"):
		return refused
	default:
		return unknown
	}
}

// A ledger has every write that was sent.
type ledger struct {
	mu     sync.Mutex
	writes []write
	newest fence.Token // the highest that has acknowledged a write at the stable address
	acks   int
}

func (l *ledger) add(w write) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes = append(l.writes, w)
	if w.fate != acknowledged {
		return
	}
	l.acks++
	if w.stable && w.token.Compare(l.newest) > 0 {
		l.newest = w.token
	}
}

// progress returns how many writes were acknowledged, and the highest token of
// those at the stable address.
func (l *ledger) progress() (acks int, newest fence.Token) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks, l.newest
}

// all returns every write so far.
func (l *ledger) all() []write {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.writes)
}

// ackTimes returns when writes at the stable address were acknowledged, in
// order.
func (l *ledger) ackTimes() []time.Time {
	var times []time.Time
	for _, w := range l.all() {
		if w.stable && w.fate == acknowledged {
			times = append(times, w.at)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	return times
}

// longestPause returns the longest time without any of the times, as far as it
// lies between from and to or touches them.
func longestPause(times []time.Time, from, to time.Time) time.Duration {
	var longest time.Duration
	last := from
	for _, t := range times {
		if t.After(to) {
			break
		}
		if t.After(from) {
			longest = max(longest, t.Sub(last))
		}
		last = t
	}
	if to.After(last) && (len(times) == 0 || !times[len(times)-1].After(to)) {
		longest = max(longest, to.Sub(last))
	}
	return longest
}
