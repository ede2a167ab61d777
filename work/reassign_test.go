package work_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/work"
)

func TestMoreJobsThanFitIntoOneCommitAreReassignedAndHoldUpNoOtherRequest(t *testing.T) {
	inLab(t, func(l *lab) {
		l.store = memory.NewWith(memory.Config{Payload: 6 << 20})
		k := instantly("sync", succeed)
		k.MaxPayload = work.MaxPayload
		p := l.open(1, k)
		for range 5 {
			p.enqueueAll(work.Request{Kind: "sync", Member: "gone", Payload: make([]byte, work.MaxPayload)})
		}
		reassign := l.post(work.Note{Op: work.OpReassign, Member: "gone"})
		l.after(time.Millisecond)
		other := l.post(work.Note{Op: work.OpEnqueue, Kind: "sync"})
		l.after(5 * time.Second)
		require.Empty(l, l.inbox())
		require.Equal(l, "5 jobs reassigned", p.reply(reassign).Text)
		require.Empty(l, p.reply(other).Error)
		require.Empty(l, p.states())
		require.EqualValues(l, 6, p.status().Totals.Completed)
	})
}

func TestARequestThatFitsIntoNoCommitIsAnsweredAndHoldsUpNoOther(t *testing.T) {
	inLab(t, func(l *lab) {
		l.store = memory.NewWith(memory.Config{Payload: 1 << 20})
		p := l.open(1, instantly("sync", succeed))
		for range 16 {
			p.enqueueAll(work.Request{Kind: "sync", Member: "gone", Payload: make([]byte, 60<<10)})
		}
		reassign := l.post(work.Note{Op: work.OpReassign, Member: "gone"})
		l.after(time.Millisecond)
		other := l.post(work.Note{Op: work.OpEnqueue, Kind: "sync"})
		l.after(5 * time.Second)
		require.Empty(l, l.inbox())
		require.Contains(l, p.reply(reassign).Error, "split it")
		require.Empty(l, p.reply(other).Error)
	})
}
