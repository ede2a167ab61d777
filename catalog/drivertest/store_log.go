package drivertest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func logRules() []rule {
	return []rule{
		{"log-is-gapless", "Log gives the records above after, numbered from 1 without a gap, in order and unchanged", logIsGapless},
		{"log-stops", "Log stops at the first error of its function and returns that error as it is", logStops},
		{"log-is-up-to-date", "Log reaches at least the newest record at the time of the call", logIsUpToDate},
		{"payload-is-the-readers", "a record's payload is its reader's to keep and to change", payloadIsTheReaders},
		{"payload-of-nothing", "an empty payload is a payload, in commits and in claims", payloadOfNothing},
		{"payload-of-any-bytes", "a payload is any bytes", payloadOfAnyBytes},
	}
}

// fill commits n records after a claim and returns the head and all records.
func (b *bench) fill(n int) (driver.Head, []driver.Record) {
	b.Helper()
	head := Install(b, b.s, 1)
	records := []driver.Record{ClaimRecord(head.Claim)}
	for i := range n {
		rec := NextRecord(head, fmt.Appendf(nil, "record %d", i))
		require.NoError(b, b.s.Append(b.ctx, head, rec))
		records = append(records, rec)
		head = head.After(rec)
	}
	return head, records
}

func logIsGapless(b *bench) {
	_, records := b.fill(30)
	next := Install(b, b.another(), 2)
	records = append(records, ClaimRecord(next.Claim))
	other := b.another()
	for i, rec := range records {
		require.EqualValues(b, i+1, rec.Revision)
	}
	for _, after := range []uint64{0, 1, 15, next.Revision - 1, next.Revision} {
		SameLog(b, records[after:], ReadLog(b, other, after))
	}
	require.Empty(b, ReadLog(b, other, next.Revision+100), "above the newest revision")
}

func logStops(b *bench) {
	b.fill(5)
	stop, calls := new(stopError), 0
	err := b.s.Log(b.ctx, 1, func(driver.Record) error {
		if calls++; calls == 3 {
			return stop
		}
		return nil
	})
	require.Same(b, stop, err)
	require.Equal(b, 3, calls)
	require.Len(b, ReadLog(b, b.s, 0), 6, "Log after one that was stopped")
}

func logIsUpToDate(b *bench) {
	head := Install(b, b.s, 1)
	other := b.another()
	for i := range 10 {
		head = Append(b, b.s, head, []byte{byte(i)})
		log := ReadLog(b, other, head.Revision-1)
		require.Len(b, log, 1, "after commit %d", i)
		require.Equal(b, head.Commit, log[0].ID)
	}
}

func payloadIsTheReaders(b *bench) {
	_, records := b.fill(5)
	var kept []driver.Record
	require.NoError(b, b.s.Log(b.ctx, 0, collect(&kept)))
	SameLog(b, records, kept)
	for _, rec := range kept {
		clear(rec.Payload)
	}
	SameLog(b, records, ReadLog(b, b.s, 0))
	var fromClaim []driver.Record
	claiming := b.claim(b.s)
	require.NoError(b, claiming.Log(b.ctx, 0, collect(&fromClaim)))
	SameLog(b, records, fromClaim)
}

func payloadOfNothing(b *bench) {
	head := Install(b, b.s, 1)
	head = Append(b, b.s, head, nil)
	head = Append(b, b.s, head, []byte{})
	for _, rec := range ReadLog(b, b.another(), 0) {
		require.Empty(b, rec.Payload, "at revision %d", rec.Revision)
	}
	require.Len(b, ReadLog(b, b.s, 0), int(head.Revision))
}

func payloadOfAnyBytes(b *bench) {
	head := Install(b, b.s, 1)
	want := make([]byte, 256)
	for i := range want {
		want[i] = byte(i)
	}
	head = Append(b, b.s, head, want)
	Append(b, b.s, head, []byte("\x00\xff'\"\\\n\xc3\x28"))
	log := ReadLog(b, b.another(), 1)
	require.Equal(b, want, log[0].Payload)
	require.Equal(b, "\x00\xff'\"\\\n\xc3\x28", string(log[1].Payload))
}
