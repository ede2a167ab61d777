package drivertest

import (
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/generation"
)

func claimRules() []rule {
	return []rule{
		{"claim-is-invisible", "a claim under way shows in nothing that another process can read", claimIsInvisible},
		{"claiming-reads", "a claim under way reads the head, and the log up to it", claimingReads},
		{"claims-in-order", "Claims gives every claim above after, oldest first, and commits are none of them", claimsInOrder},
		{"claims-stop", "Claims stops at the first error of its function and returns that error as it is", claimsStop},
		{"install-when-note", "Install lands where each note of when is at its version, and leaves the notes as they are", installWhenNote},
		{"install-other-note", "Install where a note of when is at another version wraps ErrConflict and writes nothing", installOtherNote},
		{"install-ends-the-claim", "Install ends the claim, also when it fails", installEndsTheClaim},
		{"abandon-writes-nothing", "Abandon ends the claim and writes nothing, also the second time", abandonWritesNothing},
		{"abandon-after-install", "Abandon after Install does nothing, also while another claim is under way", abandonAfterInstall},
		{"ended-claim-is-over", "Install after the end of the claim fails and writes nothing", endedClaimIsOver},
	}
}

func claimIsInvisible(b *bench) {
	head := Append(b, b.s, Install(b, b.s, 1), []byte("one"))
	_, err := b.s.Post(b.ctx, driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(b, err)
	before := b.picture()
	claiming := b.claim(b.another())
	b.unchanged(before, "a Claim that is under way")
	SameHead(b, head, ReadHead(b, b.s))
	claiming.Abandon()
	b.unchanged(before, "a Claim that was abandoned")
}

func claimingReads(b *bench) {
	head := Install(b, b.s, 1)
	for i := range 3 {
		head = Append(b, b.s, head, []byte{byte(i)})
	}
	claiming := b.claim(b.another())
	SameHead(b, head, claiming.Head())
	var got []driver.Record
	require.NoError(b, claiming.Log(b.ctx, 1, collect(&got)))
	SameLog(b, ReadLog(b, b.s, 1), got)
	stop := new(stopError)
	require.Same(b, stop, claiming.Log(b.ctx, 0, func(driver.Record) error { return stop }))
	SameHead(b, head, claiming.Head(), "after the log was read")
}

// stopError is an error that only identity finds.
type stopError struct{ _ byte }

func (*stopError) Error() string { return "stop" }

func claimsInOrder(b *bench) {
	var want []driver.Claim
	head := driver.Head{}
	for i := range 5 {
		head = Install(b, b.s, generation.Generation(1+i/2))
		want = append(want, head.Claim)
		head = Append(b, b.s, head, []byte("between"))
	}
	other := b.another()
	for i, c := range want {
		require.Equal(b, claimTexts(b, want[i:]), claimTexts(b, ReadClaims(b, other, c.Revision-1)), "from revision %d", c.Revision)
		require.Equal(b, claimTexts(b, want[i+1:]), claimTexts(b, ReadClaims(b, other, c.Revision)), "above revision %d", c.Revision)
	}
	require.Empty(b, ReadClaims(b, other, head.Revision+100))
	SameHead(b, head, ReadHead(b, other))
}

func claimsStop(b *bench) {
	Install(b, b.s, 1)
	Install(b, b.s, 1)
	stop, calls := new(stopError), 0
	err := b.s.Claims(b.ctx, 0, func(driver.Claim) error { calls++; return stop })
	require.Same(b, stop, err)
	require.Equal(b, 1, calls)
	require.Len(b, ReadClaims(b, b.s, 0), 2, "Claims after one that was stopped")
}

// post puts a note on the board.
func (b *bench) post(key, value string, version int64) driver.Note {
	b.Helper()
	n := driver.Note{Key: key, Value: []byte(value), Version: version}
	next, err := b.s.Post(b.ctx, n)
	require.NoError(b, err)
	n.Version = next
	return n
}

func installWhenNote(b *bench) {
	intent, other := b.post("intent", "promote 2", 0), b.post("other", "x", 0)
	board := ReadNotes(b, b.s, "")
	claiming := b.claim(b.another())
	claim := NextClaim(b, claiming.Head(), 2)
	absent := driver.Note{Key: "absent"}
	intent.Value = nil // only the version is the condition
	require.NoError(b, claiming.Install(b.ctx, claim, ClaimRecord(claim), intent, other, absent))
	SameHead(b, claim.Head(), ReadHead(b, b.s))
	require.Equal(b, board, ReadNotes(b, b.s, ""))
}

func installOtherNote(b *bench) {
	Append(b, b.s, Install(b, b.s, 1), []byte("one"))
	old := b.post("intent", "promote 2", 0)
	now := b.post("intent", "aborted", old.Version)
	before := b.picture()
	for what, when := range map[string][]driver.Note{
		"an older version":             {old},
		"no note where there is one":   {{Key: "intent"}},
		"a note where there is none":   {{Key: "absent", Version: now.Version}},
		"one of two":                   {now, {Key: "absent", Version: now.Version}},
		"the other one of two":         {{Key: "absent", Version: now.Version}, now},
		"a version that never existed": {{Key: "intent", Version: now.Version + 1000}},
	} {
		claiming := b.claim(b.s)
		claim := NextClaim(b, claiming.Head(), 2)
		b.conflict(claiming.Install(b.ctx, claim, ClaimRecord(claim), when...), "Install on condition of "+what)
		b.unchanged(before, "Install on condition of "+what)
	}
}

func installEndsTheClaim(b *bench) {
	head := Install(b, b.s, 1)
	claiming := b.claim(b.s)
	claim := NextClaim(b, claiming.Head(), 2)
	err := claiming.Install(b.ctx, claim, ClaimRecord(claim), driver.Note{Key: "absent", Version: 1})
	b.conflict(err, "Install on condition of a note that isn't there")
	other := b.another()
	appended := async(func() error { return other.Append(b.ctx, head, NextRecord(head, nil)) })
	require.NoError(b, b.await(appended, "Append after an Install that failed"))
	Install(b, other, 2)
	Install(b, b.s, 2)
}

func abandonWritesNothing(b *bench) {
	head := Install(b, b.s, 1)
	before := b.picture()
	claiming := b.claim(b.s)
	claiming.Abandon()
	b.unchanged(before, "Abandon")
	claiming.Abandon()
	b.unchanged(before, "a second Abandon")
	head = Append(b, b.another(), head, []byte("goes on"))
	next := b.claim(b.another())
	claiming.Abandon()
	SameHead(b, head, next.Head())
	claim := NextClaim(b, next.Head(), 1)
	require.NoError(b, next.Install(b.ctx, claim, ClaimRecord(claim)), "Install after someone else's late Abandon")
}

func abandonAfterInstall(b *bench) {
	claiming := b.claim(b.s)
	claim := NextClaim(b, claiming.Head(), 1)
	require.NoError(b, claiming.Install(b.ctx, claim, ClaimRecord(claim)))
	installed := b.picture()
	claiming.Abandon()
	b.unchanged(installed, "Abandon after Install")

	other := b.claim(b.another())
	claiming.Abandon()
	head := claim.Head()
	require.Error(b, b.s.Append(b.short(), head, NextRecord(head, nil)), "Append while another claim is under way")
	SameHead(b, head, other.Head())
	b.unchanged(installed, "Abandon after Install, with another claim under way")
}

func endedClaimIsOver(b *bench) {
	head := Install(b, b.s, 1)
	before := b.picture()
	claiming := b.claim(b.s)
	claiming.Abandon()
	claim := NextClaim(b, head, 2)
	err := claiming.Install(b.ctx, claim, ClaimRecord(claim))
	require.Error(b, err, "Install after Abandon")
	b.classified(err, "Install after Abandon")
	b.unchanged(before, "Install after Abandon")

	claiming = b.claim(b.s)
	claim = NextClaim(b, claiming.Head(), 2)
	require.NoError(b, claiming.Install(b.ctx, claim, ClaimRecord(claim)))
	installed := b.picture()
	again := NextClaim(b, claim.Head(), 3)
	require.Error(b, claiming.Install(b.ctx, again, ClaimRecord(again)), "a second Install")
	err = claiming.Renew(b.ctx)
	require.Error(b, err, "Renew after Install")
	b.classified(err, "Renew after Install")
	b.unchanged(installed, "a second Install")
}
