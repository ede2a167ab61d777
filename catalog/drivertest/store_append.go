package drivertest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func appendRules() []rule {
	return []rule{
		{"append-moves-the-head", "Append moves the head's position to the record and leaves the claim as it is", appendMoves},
		{"append-to-nothing", "Append on a catalog that nobody claimed writes nothing", appendToNothing},
		{"append-elsewhere", "Append at a prior that is not the head wraps ErrConflict and writes nothing", appendElsewhere},
		{"append-twice", "of one record sent twice with the same prior at most one lands", appendTwice},
		{"append-race", "of many Appends at one prior exactly one lands", appendRace},
		{"append-after-claim", "an Append under a head from before a claim wraps ErrConflict", appendAfterClaim},
		{"payload-is-the-callers", "what the caller does to a payload after Append changes nothing in the log", payloadIsTheCallers},
		{"payload-limit", "a payload at the limit is taken; above it the error wraps ErrTooLarge and nothing is written", payloadLimit},
	}
}

func appendMoves(b *bench) {
	head := Install(b, b.s, 1)
	rec := NextRecord(head, []byte("payload"))
	require.NoError(b, b.s.Append(b.ctx, head, rec))
	got := ReadHead(b, b.s)
	require.Equal(b, head.Revision+1, got.Revision)
	require.Equal(b, rec.ID, got.Commit)
	SameHead(b, head.After(rec), got)
	SameLog(b, []driver.Record{rec}, ReadLog(b, b.s, head.Revision))
	require.Len(b, ReadClaims(b, b.s, 0), 1, "a commit is no claim")
}

func appendToNothing(b *bench) {
	empty := b.picture()
	ghost := NextClaim(b, driver.Head{}, 1).Head()
	b.conflict(b.s.Append(b.ctx, ghost, NextRecord(ghost, nil)), "Append under a claim that never was")
	b.conflict(b.s.Append(b.ctx, driver.Head{}, NextRecord(ghost, nil)), "Append at revision 2 with no head")
	b.unchanged(empty, "refused Appends")
}

func appendElsewhere(b *bench) {
	older := Install(b, b.s, 1)
	head := Append(b, b.s, older, []byte("newest"))
	newer := head.After(NextRecord(head, nil))
	namesake := head
	namesake.Commit = driver.NewID()
	misplaced := head
	misplaced.Revision++
	before := b.picture()
	for what, prior := range map[string]driver.Head{
		"an older head": older, "a head to come": newer, "another commit at the same revision": namesake,
		"the same commit at another revision": misplaced, "the zero Head": {},
	} {
		rec := NextRecord(prior, []byte("stale"))
		rec.Token = head.Claim.Token
		b.conflict(b.s.Append(b.ctx, prior, rec), "Append at "+what)
		b.unchanged(before, "Append at "+what)
	}
	Append(b, b.s, head, []byte("still possible"))
}

func appendTwice(b *bench) {
	head := Install(b, b.s, 1)
	rec := NextRecord(head, []byte("once"))
	require.NoError(b, b.s.Append(b.ctx, head, rec))
	b.conflict(b.s.Append(b.ctx, head, rec), "the same Append again")
	b.conflict(b.another().Append(b.ctx, head, rec), "the same Append from elsewhere")
	SameLog(b, []driver.Record{rec}, ReadLog(b, b.s, head.Revision))

	next := head.After(rec)
	again := NextRecord(next, []byte("raced"))
	var calls []<-chan error
	for range 4 {
		s := b.another()
		calls = append(calls, async(func() error { return s.Append(b.ctx, next, again) }))
	}
	b.oneWins(calls)
	SameLog(b, []driver.Record{rec, again}, ReadLog(b, b.s, head.Revision))
}

func appendRace(b *bench) {
	head := Install(b, b.s, 1)
	stores := []driver.Store{b.s, b.another(), b.another()}
	for range 5 {
		var calls []<-chan error
		var records []driver.Record
		for i := range 9 {
			rec := NextRecord(head, fmt.Append(nil, "writer ", i))
			records = append(records, rec)
			calls = append(calls, async(func() error { return stores[i%len(stores)].Append(b.ctx, head, rec) }))
		}
		winner := records[b.oneWins(calls)]
		SameLog(b, []driver.Record{winner}, ReadLog(b, b.s, head.Revision))
		head = head.After(winner)
		SameHead(b, head, ReadHead(b, b.s))
	}
}

// oneWins waits for calls, fails where not exactly one succeeds or another
// fails with anything but a conflict, and returns which one did.
func (b *bench) oneWins(calls []<-chan error) int {
	b.Helper()
	winner, wins := -1, 0
	for i, call := range calls {
		err := b.await(call, "a racing write")
		if err == nil {
			winner = i
			wins++
			continue
		}
		b.conflict(err, "a write that lost")
	}
	require.Equal(b, 1, wins, "how many of the racing writes landed")
	return winner
}

func appendAfterClaim(b *bench) {
	old := Install(b, b.s, 1)
	Install(b, b.another(), 1)
	before := b.picture()
	b.conflict(b.s.Append(b.ctx, old, NextRecord(old, []byte("zombie"))), "Append of a fenced holder")
	b.unchanged(before, "Append of a fenced holder")
}

func payloadIsTheCallers(b *bench) {
	head := Install(b, b.s, 1)
	payload := []byte("as it was sent")
	Append(b, b.s, head, payload)
	clear(payload)
	require.Equal(b, "as it was sent", string(ReadLog(b, b.s, head.Revision)[0].Payload))
}

// affordable is the largest limit that the suite goes to.
const affordable = 64 << 20

func payloadLimit(b *bench) {
	limit := b.s.Limits().Payload
	require.Positive(b, limit)
	if limit > affordable {
		b.Skipf("NOT CHECKED: a payload limit of %d bytes is too large to try", limit)
	}
	largest := pattern(limit)
	head := Append(b, b.s, Install(b, b.s, 1), largest)
	got := ReadLog(b, b.another(), head.Revision-1)
	require.Len(b, got, 1)
	require.True(b, string(largest) == string(got[0].Payload), "the largest payload, unchanged")

	above := append(largest, 0)
	err := b.s.Append(b.ctx, head, NextRecord(head, above))
	b.refused(err, driver.ErrTooLarge, "a payload above the limit")
	claiming := b.claim(b.s)
	claim := NextClaim(b, claiming.Head(), 2)
	rec := ClaimRecord(claim)
	rec.Payload = above
	b.refused(claiming.Install(b.ctx, claim, rec), driver.ErrTooLarge, "a claim's payload above the limit")
	SameHead(b, head, ReadHead(b, b.s), "after payloads above the limit")
	require.Len(b, ReadClaims(b, b.s, 0), 1)
	require.Empty(b, ReadLog(b, b.s, head.Revision))
	Append(b, b.s, head, nil)
}

// pattern returns n bytes in which no block looks like its neighbour.
func pattern(n int) []byte {
	p := make([]byte, n, n+1)
	x := uint32(2463534242)
	for i := range p {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		p[i] = byte(x)
	}
	return p
}
