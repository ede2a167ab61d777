package etcd

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/epoch"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
)

func FuzzWhateverTheTokensKeyHoldsIsARefusalOfTheRightKind(f *testing.F) {
	for _, name := range []string{"claim-first", "claim-later"} {
		text, err := os.ReadFile("../driver/testdata/" + name + ".json")
		require.NoError(f, err)
		for _, g := range []uint64{0, 1, 7, uint64(generation.Max)} {
			f.Add(text, g, g)
			f.Add(text[:len(text)/2], g, uint64(1))
			f.Add([]byte(strings.Replace(string(text), "g1.e1", "g"+strings.Repeat("9", 1000)+".e1", 1)), g, g)
		}
	}
	f.Add([]byte(nil), uint64(7), uint64(41))
	own, err := (&Register{keys: keys{"orders"}}).text(fence.Token{Generation: 7, Epoch: 41}, fence.Holder{Name: "blue"})
	require.NoError(f, err)
	for _, g := range []uint64{6, 7, 8} {
		f.Add([]byte(own), g, uint64(41))
	}
	f.Fuzz(func(t *testing.T, value []byte, gen, ep uint64) {
		held := fence.Token{Generation: generation.Generation(gen), Epoch: epoch.Epoch(ep)}
		g, r := guard{keys: keys{"orders"}, token: held}, &Register{keys: keys{"orders"}}
		if err := g.check(); err != nil {
			require.Error(t, Refusal(err))
			require.Less(t, len(err.Error()), 500)
			return
		}
		err := g.refusal(&mvccpb.KeyValue{Value: value})
		require.Error(t, err)
		require.NotErrorIs(t, err, fence.ErrSuperseded)
		claim, broken := driver.UnmarshalClaim(value)
		below, elsewhere := r.below(&mvccpb.KeyValue{Value: value}, held)
		require.Less(t, len(fmt.Sprint(r.fail("raise", elsewhere, read))), 3000)
		require.Equal(t, broken == nil && ofRegister(claim) && claim.Token.Compare(held) < 0, below, "it rises over nothing else than a lower token")
		require.False(t, below && elsewhere != nil)
		var stale *fence.Error
		switch {
		case broken != nil:
			require.ErrorIs(t, err, driver.ErrCorrupt)
			require.NoError(t, Refusal(err))
			require.Less(t, len(err.Error()), 1000)
		case held.Compare(claim.Token) < 0:
			require.True(t, errors.As(Refusal(err), &stale))
			require.Equal(t, claim.Token, stale.Current)
			require.Equal(t, held, stale.Held)
		default:
			require.ErrorIs(t, err, fence.ErrNeverIssued)
			require.NotErrorIs(t, err, fence.ErrFenced)
			require.Less(t, len(err.Error()), 500)
		}
	})
}
