package work_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/work"
)

// put puts a request into the inbox under a ref.
func (l *lab) put(ref, text string) {
	l.Helper()
	_, err := l.store.Post(l.Context(), driver.Note{Key: work.InboxPrefix + ref, Value: []byte(text)})
	require.NoError(l, err)
}

// refuseRemovals has a process remove no request.
func (p *process) refuseRemovals() {
	p.store.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Post" {
			return memory.Refuse
		}
		return memory.Pass
	})
}

func (p *process) takenEntries() (n int) {
	p.Helper()
	require.NoError(p, p.c.View(func(r *catalog.Reader) error {
		return catalog.Bytes("fencepost.work.taken").Scan(r, "", func(string, []byte) bool { n++; return true })
	}))
	return n
}

func TestARequestWhoseRemovalWasLostIsNotTakenAgainHoweverManyRepliesHaveComeSince(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		blue := l.open(1)
		blue.refuseRemovals()
		const last = `{"op":"enqueue","kind":"sync","payload":"YQ=="}`
		l.put("z", last)
		l.after(2 * time.Second)
		require.Len(l, l.inbox(), 1, "it was taken, and could not be removed")
		require.EqualValues(l, 1, blue.status().Totals.Enqueued)
		for i := range 1500 { // more than there are replies, all before it
			l.put(fmt.Sprintf("%04d", i), `{"op":"retry","id":1}`)
		}
		green := l.open(2, s.kind("sync"))
		l.after(5 * time.Second)
		require.Empty(l, l.inbox())
		require.Equal(l, []string{"a"}, s.ran())
		require.EqualValues(l, 1, green.status().Totals.Enqueued)
		l.put("zz", last)
		l.after(2 * time.Second)
		require.Len(l, s.ran(), 2, "another one is")
		require.Equal(l, 1, green.takenEntries(), "what was removed is forgotten by the next commit")
	})
}

func TestAZombiesLateRemovalRemovesNothingThatIsNew(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		blue := l.open(1)
		blue.store.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" {
				return memory.Delay
			}
			return memory.Pass
		})
		const text = `{"op":"enqueue","kind":"sync","payload":"YQ=="}`
		l.put("a", text)
		l.after(2 * time.Second)
		require.Len(l, l.inbox(), 1, "the removal is on its way")
		l.open(2, s.kind("sync"))
		l.after(2 * time.Second)
		require.Empty(l, l.inbox())
		for i := range 1100 { // until the reply is gone, so that the ref may be used anew
			l.put(fmt.Sprintf("b%04d", i), `{"op":"retry","id":1}`)
		}
		l.after(2 * time.Second)
		green := l.open(3)
		green.refuseRemovals()
		l.put("a", text)
		l.after(2 * time.Second)
		blue.store.Release()
		require.Len(l, l.inbox(), 1, "it is another version")
		require.Equal(l, []string{"a"}, s.ran())
	})
}

// slow has every read of the board take a while.
func (p *process) slow(by time.Duration) {
	p.store.Inject(func(c memory.Call) memory.Fault {
		if c.Method == "Notes" {
			<-time.After(by)
		}
		return memory.Pass
	})
}

func TestRequestsOfOneKindKeepTheirOrderWhileTheQueueIsFullAndHoldUpNoOtherKind(t *testing.T) {
	for name, most := range map[string]int{"a few at a time": 60, "more than a page at a time": 300} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(l *lab) {
				var mu sync.Mutex
				jobs := map[work.ID]string{}
				k := work.Kind{Name: "sync", MaxQueued: most, Run: func(_ context.Context, j *work.Job) error {
					mu.Lock()
					jobs[j.ID] = string(j.Payload)
					mu.Unlock()
					<-time.After(1100 * time.Millisecond) // until the next look
					return nil
				}}
				other := newStage()
				p := l.openWith(1, work.Config{Kinds: []work.Kind{k, other.kind("other")}, Concurrency: 1000})
				p.slow(400 * time.Millisecond)
				const all = 1300 // several pages, and more than one look
				for i := range all {
					l.put(fmt.Sprintf("%04d", i), fmt.Sprintf(`{"op":"enqueue","kind":"sync","payload":"%04d"}`, i))
				}
				l.put("9", `{"op":"enqueue","kind":"other","payload":"YQ=="}`)
				l.after(10 * time.Second)
				require.Len(l, other.ran(), 1)
				l.after(15 * time.Minute)
				require.Empty(l, l.inbox())
				require.Len(l, jobs, all)
				var payloads []string
				for _, id := range slices.Sorted(maps.Keys(jobs)) {
					payloads = append(payloads, jobs[id])
				}
				require.IsIncreasing(l, payloads, "in the order of their refs")
			})
		})
	}
}

func TestAnOperatorsRequestDoesNotWaitForVeryManyOthers(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.open(1)
		p.slow(400 * time.Millisecond)
		for i := range 5000 { // 8 s
			l.put(fmt.Sprintf("s%04d", i), `{"op":"retry","id":1}`)
		}
		l.after(1500 * time.Millisecond)
		ref := l.post(work.Note{Op: work.OpActivate})
		answered := false
		for begun := time.Now(); !answered && time.Since(begun) < 2*time.Second; l.after(100 * time.Millisecond) {
			require.NoError(l, p.c.View(func(r *catalog.Reader) (err error) { _, answered, err = work.ReplyTo(r, ref); return err }))
		}
		require.True(l, answered)
		require.NotEmpty(l, l.inbox())
	})
}

func TestAFullQueueWritesNothingWhileItIsFull(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.MaxQueued = 1
		p := l.open(1, k)
		p.enqueue("sync", "", "a")
		l.put("1", `{"op":"enqueue","kind":"sync"}`)
		l.after(time.Second)
		before := p.c.Head().Revision
		l.after(time.Minute)
		require.Equal(l, before, p.c.Head().Revision)
	})
}

func TestNoBytesInTheInboxHoldUpWhatIsBehindThem(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		for i, text := range []string{"", "\x00", "{", `"text"`, "null", "[1]", "\xff\xfe", `{"op":"enqueue","kind":"sync","payload":"?"}`} {
			l.put(fmt.Sprintf("%04d", i), text)
		}
		l.put("9", `{"op":"enqueue","kind":"sync","payload":"YQ=="}`)
		l.after(2 * time.Second)
		require.Equal(l, []string{"a"}, s.ran())
		require.Empty(l, l.inbox())
		require.Equal(l, 8, p.status().Dead)
		out, err := work.Inbox(l.Context(), catalog.NewBoard(l.store, catalog.Config{}))
		require.NoError(l, err)
		require.Zero(l, out)
	})
}

func TestTheInboxIsCountedByThePage(t *testing.T) {
	inLab(t, func(l *lab) {
		for i := range 600 {
			l.put(fmt.Sprintf("%04d", i), fmt.Sprintf(`{"op":"activate","at":"2020-01-01T00:%02d:00Z"}`, 59-i%60))
		}
		l.put("x", "spoilt")
		out, err := work.Inbox(l.Context(), catalog.NewBoard(l.store, catalog.Config{}))
		require.NoError(l, err)
		require.Equal(l, work.Outside{Requests: 601, Unread: 1, Oldest: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}, out)
	})
}

func TestARequestWithoutAUsableReferenceHoldsUpNoOtherAndIsCounted(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		p := l.open(1, s.kind("sync"))
		board := catalog.NewBoard(l.store, catalog.Config{})
		const text = `{"op":"enqueue","kind":"sync","payload":"YQ=="}`
		bad := []string{"", strings.Repeat("r", work.MaxRef+1), strings.Repeat("r", 5000), "\xff", "a/b", "a\x00", "\u00e4"}
		for _, ref := range bad {
			require.ErrorIs(l, work.Post(l.Context(), board, ref, work.Note{Op: work.OpActivate}), work.ErrInvalid)
			l.put(ref, text)
		}
		l.put(strings.Repeat("z", work.MaxRef), text)
		l.after(2 * time.Second)
		require.Equal(l, []string{"a"}, s.ran())
		out, err := work.Inbox(l.Context(), board)
		require.NoError(l, err)
		require.Equal(l, len(bad), out.Requests)
		require.Equal(l, len(bad), out.Unread)
		before := p.c.Head().Revision
		l.after(time.Minute)
		require.Equal(l, before, p.c.Head().Revision, "nothing is written for them")
	})
}

func TestAHolderThatItsOwnCommitsWakeLooksSeldomAndAfterARequestAtOnceAgain(t *testing.T) {
	inLab(t, func(l *lab) {
		var looks atomic.Int64
		p := l.openWith(1, work.Config{Poll: time.Hour})
		p.store.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Notes" {
				looks.Add(1)
			}
			return memory.Pass
		})
		entries := catalog.Bytes("entries")
		for range 1000 { // a commit a millisecond
			p.update(func(tx *catalog.Tx) error { return entries.Set(tx, "k", nil) })
			l.after(time.Millisecond)
		}
		require.LessOrEqual(l, looks.Load(), int64(30))
		require.Positive(l, looks.Load())
		l.after(time.Second)
		ref := l.post(work.Note{Op: work.OpActivate})
		l.after(10 * time.Millisecond)
		p.reply(ref)
	})
}
