package drivertest

import (
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

func warmRules() []rule {
	rules := []rule{
		{"warm-is-unwritten", "Warm changes nothing that a reader sees, and begins no catalog", warmIsUnwritten},
		{"warm-keeps-nobody-waiting", "Warm returns while a claim is under way, and neither that claim nor the commits after it wait for it", warmKeepsNobodyWaiting},
		{"warm-then-claim", "a store that was warmed, once or again, claims and commits as any other", warmThenClaim},
		{"warm-closed", "Warm of a closed store fails", warmClosed},
	}
	for i, r := range rules {
		rules[i].test = func(b *bench) {
			if _, ok := b.s.(driver.Warmer); !ok {
				b.Log("the store is no driver.Warmer, and its first claim may cost more than a later one")
				return
			}
			r.test(b)
		}
	}
	return rules
}

// warm calls Warm, which must return soon.
func (b *bench) warm(s driver.Store) {
	b.Helper()
	require.NoError(b, b.await(async(func() error { return s.(driver.Warmer).Warm(b.ctx) }), "Warm"))
}

func warmIsUnwritten(b *bench) {
	none := b.picture()
	b.warm(b.s)
	b.unchanged(none, "Warm of no catalog")
	head := Install(b, b.s, 1)
	Append(b, b.s, head, []byte("a"))
	_, err := b.s.Post(b.ctx, driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(b, err)
	before := b.picture()
	other := b.another()
	for range 2 {
		b.warm(other)
		b.unchanged(before, "Warm")
	}
}

func warmKeepsNobodyWaiting(b *bench) {
	Install(b, b.s, 1)
	b.warm(b.s)
	other := b.another()
	c := b.claim(b.s)
	b.warm(other)
	claim := NextClaim(b, c.Head(), 2)
	require.NoError(b, c.Install(b.ctx, claim, ClaimRecord(claim)))
	Append(b, b.s, claim.Head(), []byte("a"))
}

func warmThenClaim(b *bench) {
	head := Install(b, b.s, 1)
	for range 2 {
		s := b.another()
		b.warm(s)
		b.warm(s)
		head = Append(b, s, Install(b, s, head.Claim.Token.Generation+1), []byte("a"))
	}
	require.Equal(b, headText(b, head), headText(b, ReadHead(b, b.s)))
}

func warmClosed(b *bench) {
	for _, catalog := range []func(){func() {}, func() { Install(b, b.s, 1) }} {
		catalog()
		s := b.another()
		require.NoError(b, s.Close())
		err := b.await(async(func() error { return s.(driver.Warmer).Warm(b.ctx) }), "Warm of a closed store")
		require.Error(b, err)
		b.classified(err, "Warm of a closed store")
	}
}
