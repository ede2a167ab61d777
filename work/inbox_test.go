package work_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/work"
)

// post posts a request by a process that does not hold the token.
func (l *lab) post(n work.Note) (ref string) {
	l.Helper()
	ref = work.NewRef(time.Now())
	require.NoError(l, work.Post(l.Context(), catalog.NewBoard(l.store.Open(), catalog.Config{}), ref, n))
	return ref
}

func (p *process) reply(ref string) work.Reply {
	p.Helper()
	var reply work.Reply
	var found bool
	require.NoError(p, p.c.View(func(r *catalog.Reader) (err error) { reply, found, err = work.ReplyTo(r, ref); return err }))
	require.True(p, found, "no reply to %s", ref)
	return reply
}

func (l *lab) inbox() (notes []driver.Note) {
	l.Helper()
	notes, err := l.store.Notes(l.Context(), work.InboxPrefix)
	require.NoError(l, err)
	return notes
}

func TestARequestOfAProcessWithoutTheTokenIsActedUponOnce(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		first := l.post(work.Note{Op: work.OpEnqueue, Kind: "sync", Key: "serde", Payload: []byte("a"), Priority: 3})
		l.after(time.Hour)
		require.Len(l, l.inbox(), 1, "it waits for a holder")
		p := l.open(1, s.kind("sync"))
		l.after(time.Second)
		require.Equal(l, []string{"a"}, s.ran())
		require.Empty(l, l.inbox())
		id := p.reply(first).ID
		info := p.job(id)
		require.Equal(l, first, info.Ref)
		require.Equal(l, 3, info.Priority)
		require.True(l, info.Made.IsZero())
		// The same one once more, as behind a lost answer.
		require.NoError(l, work.Post(l.Context(), catalog.NewBoard(l.store.Open(), catalog.Config{}), first, work.Note{Op: work.OpEnqueue, Kind: "sync"}))
		l.after(2 * time.Second)
		require.Empty(l, l.inbox())
		require.Len(l, s.ran(), 1)
		require.EqualValues(l, 1, p.status().Totals.Enqueued)
	})
}

func TestARequestThatWasTakenByAHolderThatCouldNotRemoveItIsNotTakenAgainByTheNext(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		blue := l.open(1)
		blue.store.Inject(func(c memory.Call) memory.Fault {
			if c.Method == "Post" {
				return memory.Refuse
			}
			return memory.Pass
		})
		l.post(work.Note{Op: work.OpEnqueue, Kind: "sync", Payload: []byte("a")})
		l.after(2 * time.Second)
		require.Len(l, l.inbox(), 1)
		l.open(2, s.kind("sync"))
		l.after(2 * time.Second)
		require.Equal(l, []string{"a"}, s.ran())
		require.Empty(l, l.inbox())
	})
}

func TestPeopleActByRequestsAndAreAnswered(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.MaxAttempts = 1
		p := l.open(2, k)
		id := p.enqueue("sync", "", "a")
		stranded := p.enqueueAll(work.Request{Kind: "sync", Generation: 1}, work.Request{Kind: "sync", Member: "db1"})
		s.end(id, errAway)
		ask := func(n work.Note) work.Reply {
			ref := l.post(n)
			l.after(2 * time.Second)
			return p.reply(ref)
		}
		require.Equal(l, "runs again", ask(work.Note{Op: work.OpRetry, ID: id}).Text)
		require.Len(l, s.ran(), 2)
		require.Equal(l, "abandoned", ask(work.Note{Op: work.OpAbandon, ID: id, Reason: "wrong"}).Text)
		require.Equal(l, work.Abandoned, p.job(id).Reason)
		require.Equal(l, id, ask(work.Note{Op: work.OpClear, ID: id}).ID)
		require.Zero(l, p.status().Dead)
		require.Contains(l, ask(work.Note{Op: work.OpClear, ID: id}).Error, "not on the dead list")
		require.Contains(l, ask(work.Note{Op: work.OpRetry, ID: 99}).Error, "no such job")
		require.Equal(l, "1 jobs reassigned", ask(work.Note{Op: work.OpReassign, Generation: 1}).Text)
		require.Equal(l, "1 jobs reassigned", ask(work.Note{Op: work.OpReassign, Member: "db1"}).Text)
		require.Equal(l, "member db1", p.job(stranded+1).From)
		require.Equal(l, "a pass was made", ask(work.Note{Op: work.OpActivate}).Text)
	})
}

func TestARequestThatCantBeReadGoesToTheDeadList(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.open(1)
		for i, text := range []string{`{"op":7}`, `{"op":"explode"}`, `{"op":"enqueue","kind":""}`, `{}`, `{"op":"enqueue","kind":"sync","priority":5000}`} {
			l.put(fmt.Sprint(i), text)
		}
		l.after(2 * time.Second)
		require.Empty(l, l.inbox())
		st := p.status()
		require.Equal(l, 5, st.Dead)
		require.EqualValues(l, 5, st.Totals.Dead())
		require.Zero(l, st.Totals.Live())
		require.Contains(l, p.reply("1").Error, "does not know the operation")
		info := p.job(p.reply("1").ID)
		require.Equal(l, work.Malformed, info.Reason)
		require.Equal(l, `{"op":"explode"}`, string(info.Payload))
		require.ErrorIs(l, p.c.Update(l.Context(), func(tx *catalog.Tx) error { return work.Retry(tx, info.ID) }), work.ErrInvalid)
	})
}

func TestARequestWaitsInTheInboxWhileTheQueueIsFull(t *testing.T) {
	inLab(t, func(l *lab) {
		s := newStage()
		k := s.kind("sync")
		k.MaxQueued = 1
		p := l.open(1, k)
		id := p.enqueue("sync", "", "a")
		l.post(work.Note{Op: work.OpEnqueue, Kind: "sync", Payload: []byte("b")})
		l.after(10 * time.Second)
		require.Len(l, l.inbox(), 1)
		s.end(id, nil)
		l.after(2 * time.Second)
		require.Equal(l, []string{"a", "b"}, s.ran())
	})
}

func TestPostRefusesWhatNoHolderWouldTake(t *testing.T) {
	inLab(t, func(l *lab) {
		board := catalog.NewBoard(l.store, catalog.Config{})
		require.ErrorIs(l, work.Post(l.Context(), board, "1", work.Note{Op: work.OpEnqueue}), work.ErrInvalid)
		err := work.Post(l.Context(), board, "1", work.Note{Op: work.OpEnqueue, Kind: "sync", Payload: make([]byte, work.MaxPayload+1)})
		require.ErrorIs(l, err, work.ErrTooLarge)
	})
}

func TestOnlyTheNewestRepliesAreKept(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.open(1)
		first := l.post(work.Note{Op: work.OpActivate})
		l.after(2 * time.Second)
		for i := range 1100 {
			l.put(fmt.Sprintf("%04d", i), `{"op":"retry","id":1}`)
		}
		l.after(10 * time.Second)
		require.Empty(l, l.inbox())
		require.NoError(l, p.c.View(func(r *catalog.Reader) error {
			n := 0
			require.NoError(l, catalog.Bytes("fencepost.work.replies").Scan(r, "", func(string, []byte) bool { n++; return true }))
			require.Equal(l, 1024, n)
			_, found, err := work.ReplyTo(r, first)
			require.False(l, found)
			return err
		}))
	})
}

func TestAJobOfAKindThatOnlyTheNextReleaseKnowsIsKeptWhateverItsPayload(t *testing.T) {
	inLab(t, func(l *lab) {
		blue := l.open(1)
		payload := make([]byte, 100<<10) // above the default of a kind
		ref := l.post(work.Note{Op: work.OpEnqueue, Kind: "new", Payload: payload})
		blue.enqueue("new", "", string(payload))
		l.after(2 * time.Second)
		require.Zero(l, blue.status().Dead)
		require.Equal(l, work.Unknown, blue.job(blue.reply(ref).ID).State)
		s := newStage()
		k := s.kind("new")
		k.MaxPayload = work.MaxPayload
		l.open(2, k)
		l.after(2 * time.Second)
		require.Equal(l, []string{string(payload), string(payload)}, s.ran())
	})
}
