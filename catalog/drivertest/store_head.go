package drivertest

import (
	"math"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func headRules() []rule {
	return []rule{
		{"head-of-nothing", "Head is the zero Head where nothing was ever claimed", headOfNothing},
		{"reads-write-nothing", "reads, and a claim that is abandoned, write nothing", readsWriteNothing},
		{"first-claim", "the first claim of an empty catalog installs a head at revision 1", firstClaim},
		{"head-is-whole", "every field of a claim survives, the time to the microsecond", headIsWhole},
		{"largest-token", "the largest generation and epoch survive in head, log and claims", largestToken},
		{"read-your-writes", "a read that begins after a write returned sees it, through any store", readYourWrites},
	}
}

func headOfNothing(b *bench) {
	require.True(b, ReadHead(b, b.s).IsZero())
	require.Equal(b, driver.Head{}, ReadHead(b, b.s))
}

func readsWriteNothing(b *bench) {
	empty := b.picture()
	b.claim(b.s).Abandon()
	b.unchanged(empty, "reads of an empty catalog")
	require.Equal(b, driver.Head{}, ReadHead(b, b.s))
	require.Empty(b, empty.Log)
	require.Empty(b, empty.Claims)
	require.Empty(b, empty.Notes)

	Append(b, b.s, Install(b, b.s, 1), []byte("one"))
	full := b.picture()
	b.claim(b.s).Abandon()
	b.unchanged(full, "reads of a catalog in use")
}

func firstClaim(b *bench) {
	claiming := b.claim(b.s)
	require.True(b, claiming.Head().IsZero(), "the head under the first claim")
	var none []driver.Record
	require.NoError(b, claiming.Log(b.ctx, 0, collect(&none)))
	require.Empty(b, none, "the log under the first claim")
	claim := NextClaim(b, claiming.Head(), 7)
	rec := ClaimRecord(claim)
	rec.Payload = []byte("the first commit")
	require.NoError(b, claiming.Install(b.ctx, claim, rec))

	SameHead(b, claim.Head(), ReadHead(b, b.s))
	SameLog(b, []driver.Record{rec}, ReadLog(b, b.s, 0))
	require.Equal(b, claimTexts(b, []driver.Claim{claim}), claimTexts(b, ReadClaims(b, b.s, 0)))
}

func headIsWhole(b *bench) {
	prior := Install(b, b.s, 3)
	claim := NextClaim(b, prior, 4)
	claim.DataVersion, claim.ReadableBy = 1<<40, 1<<39
	claim.Reason = "promoted by \"ops\"\n\tafter <review> & it's 100% 'done' \\ ;--"
	claim.Holder = fence.Holder{
		Name:    "žluťoučký-кінь-馬-🐎",
		Address: "[2001:db8::1%eth0]:8443",
		Build:   "v1.2.3-0.20260101+dirty",
		Since:   time.Date(2026, 3, 29, 2, 30, 0, 123456789, time.FixedZone("somewhere", 5400)),
	}
	claiming := b.claim(b.s)
	require.NoError(b, claiming.Install(b.ctx, claim, ClaimRecord(claim)))

	other := b.another()
	SameHead(b, claim.Head(), ReadHead(b, other))
	last := ReadClaims(b, other, prior.Revision)
	require.Equal(b, claimTexts(b, []driver.Claim{claim}), claimTexts(b, last))
	require.True(b, last[0].Holder.Since.Equal(claim.Holder.Since.Truncate(time.Microsecond)), "the time of the claim")
	next := Append(b, b.s, claim.Head(), nil)
	SameHead(b, next, ReadHead(b, other), "the claim's fields after one more commit")
}

func largestToken(b *bench) {
	claiming := b.claim(b.s)
	claim := NextClaim(b, claiming.Head(), generation.Max)
	claim.Token = fence.Token{Generation: generation.Max, Epoch: epoch.Max}
	claim.DataVersion, claim.ReadableBy = math.MaxInt64, math.MaxInt64
	require.NoError(b, claiming.Install(b.ctx, claim, ClaimRecord(claim)))
	head := Append(b, b.s, claim.Head(), []byte("under it"))

	other := b.another()
	SameHead(b, head, ReadHead(b, other))
	require.Equal(b, claim.Token, ReadLog(b, other, 1)[0].Token)
	require.Equal(b, claim.Token, ReadClaims(b, other, 0)[0].Token)
}

func readYourWrites(b *bench) {
	other := b.another()
	head := Install(b, b.s, 1)
	SameHead(b, head, ReadHead(b, other), "after a claim")
	for i := range 20 {
		head = Append(b, b.s, head, []byte{byte(i)})
		SameHead(b, head, ReadHead(b, other), "after commit %d", i)
		require.Len(b, ReadLog(b, other, head.Revision-1), 1, "the log after commit %d", i)
		b.s, other = other, b.s
	}
	_, err := b.s.Post(b.ctx, driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(b, err)
	require.Len(b, ReadNotes(b, other, "k"), 1, "the board after a post")
}
