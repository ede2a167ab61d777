package drivertest

import (
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func lossRules() []rule {
	return []rule{
		{"losses-are-recorded", "PutLosses replaces the record of losses, moves neither head, log nor board, and every later read shows it", lossesAreRecorded},
		{"losses-at-their-version", "PutLosses at another version than the record's wraps ErrConflict and writes nothing", lossesAtTheirVersion},
		{"losses-at-their-head", "PutLosses at another head than the newest wraps ErrConflict and writes nothing; at no head it lands", lossesAtTheirHead},
		{"losses-at-their-place", "PutLosses for another server, cluster or file wraps ErrConflict and writes nothing", lossesAtTheirPlace},
		{"losses-race", "of several PutLosses at one version exactly one lands", lossesRace},
		{"losses-refuse-a-claim", "a record of losses that lands beside a claim under way refuses that claim", lossesRefuseAClaim},
		{"losses-are-not-late", "a record of losses at the head before a claim never lands behind that claim", lossesAreNotLate},
		{"losses-go-with-a-claim", "a claim reads the record of losses, and replaces it in its own commit or not at all", lossesGoWithAClaim},
		{"losses-are-no-note", "the record of losses is no note: Notes leaves it out, and Post refuses its key", lossesAreNoNote},
		{"losses-need-a-catalog", "PutLosses where nobody ever wrote anything lands or wraps ErrConflict, and creates no claim", lossesNeedACatalog},
	}
}

func (b *bench) losses(s driver.Store) driver.Losses {
	b.Helper()
	l, err := s.Losses(b.ctx)
	require.NoError(b, err)
	return l
}

// recordLoss records text at head, which is the newest.
func (b *bench) recordLoss(text string, at *driver.Head) driver.Losses {
	b.Helper()
	l := b.losses(b.s)
	l.Text = []byte(text)
	version, err := b.s.PutLosses(b.ctx, l, at)
	require.NoError(b, err)
	require.NotZero(b, version)
	l.Version = version
	require.Equal(b, l, b.losses(b.another()))
	return l
}

func lossesAreRecorded(b *bench) {
	require.Nil(b, b.losses(b.s).Text)
	require.Zero(b, b.losses(b.s).Version)
	b.post("k", "v", 0)
	head := Append(b, b.s, Install(b, b.s, 1), []byte("one"))
	require.Zero(b, b.losses(b.s).Version)
	require.NotEmpty(b, b.losses(b.s).Place)
	before := b.picture()
	first := b.recordLoss("first", &head)
	second := b.recordLoss("second", &head)
	require.NotEqual(b, first.Version, second.Version)
	before.Losses = driver.Losses{Text: second.Text, Version: second.Version}
	b.unchanged(before, "two PutLosses")
	head = Append(b, b.s, head, []byte("goes on"))
	require.Equal(b, second, b.losses(b.s))
	SameHead(b, head, ReadHead(b, b.another()))
}

func lossesAtTheirVersion(b *bench) {
	head := Install(b, b.s, 1)
	old := b.recordLoss("old", &head)
	now := b.recordLoss("now", &head)
	before := b.picture()
	for what, version := range map[string]int64{"no version": 0, "an older version": old.Version, "a version that never existed": now.Version + 1000} {
		_, err := b.another().PutLosses(b.ctx, driver.Losses{Text: []byte("x"), Version: version, Place: now.Place}, &head)
		b.conflict(err, "PutLosses at "+what)
		b.unchanged(before, "PutLosses at "+what)
	}
}

func lossesAtTheirHead(b *bench) {
	claimed := Install(b, b.s, 1)
	appended := Append(b, b.s, claimed, []byte("one"))
	foreign := appended
	foreign.Claim.ID = driver.NewID()
	namesake := appended
	namesake.Commit = driver.NewID()
	l := b.losses(b.s)
	l.Text = []byte("x")
	before := b.picture()
	for what, at := range map[string]*driver.Head{
		"the head of before a commit": &claimed, "the same position of another claim": &foreign,
		"another commit at the same revision": &namesake, "the head that nobody ever claimed": {},
	} {
		_, err := b.another().PutLosses(b.ctx, l, at)
		b.conflict(err, "PutLosses at "+what)
		b.unchanged(before, "PutLosses at "+what)
	}
	b.recordLoss("at the head", &appended)
	b.recordLoss("anywhere", nil)
}

func lossesAtTheirPlace(b *bench) {
	head := Install(b, b.s, 1)
	l := b.losses(b.s)
	before := b.picture()
	l.Text, l.Place = []byte("x"), "elsewhere"
	_, err := b.s.PutLosses(b.ctx, l, &head)
	b.conflict(err, "PutLosses elsewhere")
	_, err = b.s.PutLosses(b.ctx, l, nil)
	b.conflict(err, "PutLosses elsewhere, at any head")
	b.unchanged(before, "PutLosses elsewhere")
}

func lossesRace(b *bench) {
	head := Install(b, b.s, 1)
	l := b.losses(b.s)
	for range 3 {
		var calls []<-chan error
		for i := range 6 {
			s, mine := b.another(), l
			mine.Text = []byte{byte('a' + i)}
			calls = append(calls, async(func() error {
				_, err := s.PutLosses(b.ctx, mine, &head)
				return err
			}))
		}
		winner := b.oneWins(calls)
		l = b.losses(b.s)
		require.Equal(b, []byte{byte('a' + winner)}, l.Text)
	}
}

// lossesRefuseAClaim also takes a store that keeps the record waiting for the end
// of the claim: then the claim lands, and the record, whose head has gone, does
// not.
func lossesRefuseAClaim(b *bench) {
	head := Install(b, b.s, 1)
	l := b.losses(b.s)
	l.Text = []byte("found beside a claim")
	claiming := b.claim(b.another())
	put := async(func() error { _, err := b.s.PutLosses(b.ctx, l, &head); return err })
	var err error
	select {
	case err = <-put:
		require.NoError(b, err)
		claim := NextClaim(b, claiming.Head(), 2)
		b.conflict(claiming.Install(b.ctx, claim, ClaimRecord(claim)), "Install beside a record of losses")
		SameHead(b, head, ReadHead(b, b.s))
		require.Equal(b, l.Text, b.losses(b.s).Text)
	case <-b.short().Done():
		claim := NextClaim(b, claiming.Head(), 2)
		require.NoError(b, claiming.Install(b.ctx, claim, ClaimRecord(claim)))
		b.conflict(b.await(put, "PutLosses behind a claim"), "PutLosses behind a claim")
		require.Nil(b, b.losses(b.s).Text)
	}
}

func lossesAreNotLate(b *bench) {
	for i := range 10 {
		head := Install(b, b.s, 1)
		l := b.losses(b.s)
		l.Text = []byte{byte('a' + i)}
		other := b.another()
		put := async(func() error { _, err := other.PutLosses(b.ctx, l, &head); return err })
		claiming := b.claim(b.another())
		seen := claiming.Losses()
		claim := NextClaim(b, claiming.Head(), 1)
		installed := claiming.Install(b.ctx, claim, ClaimRecord(claim))
		err := b.await(put, "PutLosses beside a claim")
		switch {
		case installed == nil && seen.Version == l.Version:
			b.conflict(err, "PutLosses at the head before a claim that landed and has not seen it")
		case installed != nil:
			b.conflict(installed, "Install")
			require.NoError(b, err)
		default:
			require.NoError(b, err, "the claim has seen it")
		}
	}
}

func lossesGoWithAClaim(b *bench) {
	head := Install(b, b.s, 1)
	found := b.recordLoss("found", &head)
	claiming := b.claim(b.another())
	require.Equal(b, found.Text, claiming.Losses().Text)
	require.Equal(b, found.Version, claiming.Losses().Version)
	claiming.ReplaceLosses([]byte("given up"))
	claiming.Abandon()
	require.Equal(b, found, b.losses(b.s))

	claiming = b.claim(b.another())
	claiming.ReplaceLosses([]byte("refused"))
	claim := NextClaim(b, head, 2)
	b.conflict(claiming.Install(b.ctx, claim, ClaimRecord(claim), driver.Note{Key: "absent", Version: 1}), "Install on condition of a note that isn't there")
	require.Equal(b, found, b.losses(b.s))

	head = Install(b, b.s, 2)
	require.Equal(b, found, b.losses(b.s), "a claim leaves the record as it is")

	claiming = b.claim(b.another())
	claiming.ReplaceLosses([]byte("ended"))
	claim = NextClaim(b, head, 2)
	require.NoError(b, claiming.Install(b.ctx, claim, ClaimRecord(claim)))
	SameHead(b, claim.Head(), ReadHead(b, b.s))
	now := b.losses(b.s)
	require.Equal(b, "ended", string(now.Text))
	require.NotEqual(b, found.Version, now.Version)
}

func lossesAreNoNote(b *bench) {
	head := Install(b, b.s, 1)
	b.recordLoss("found", &head)
	require.Empty(b, ReadNotes(b, b.s, ""))
	require.Empty(b, ReadNotes(b, b.s, driver.LossesKey))
	before := b.picture()
	for _, value := range [][]byte{[]byte("x"), nil} {
		for _, version := range []int64{0, before.Losses.Version} {
			_, err := b.s.Post(b.ctx, driver.Note{Key: driver.LossesKey, Value: value, Version: version})
			require.Error(b, err, "Post at the key of the losses")
			b.classified(err, "Post at the key of the losses")
		}
	}
	b.unchanged(before, "Post at the key of the losses")
}

func lossesNeedACatalog(b *bench) {
	l := b.losses(b.s)
	require.Zero(b, l.Version)
	l.Text = []byte("x")
	_, err := b.s.PutLosses(b.ctx, l, &driver.Head{})
	if err != nil {
		b.conflict(err, "PutLosses where there is no catalog")
	}
	require.True(b, ReadHead(b, b.s).IsZero())
	Install(b, b.s, 1)
}
