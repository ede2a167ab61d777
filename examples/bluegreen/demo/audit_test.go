package demo

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/fence"
)

func blueToken() fence.Token  { return fence.Token{Generation: 1, Epoch: 1} }
func greenToken() fence.Token { return fence.Token{Generation: 2, Epoch: 2} }

// found audits a log in which blue claims at revision 1 and green at revision
// 3: the keys of the commits at revisions 2, 4, 5 and so on are given.
func found(writes []write, second catalog.Commit, later ...catalog.Commit) findings {
	a := newAuditor([]driver.Claim{{Token: blueToken(), Revision: 1}, {Token: greenToken(), Revision: 3}})
	a.commit(catalog.Commit{Revision: 1, Token: blueToken()})
	second.Revision = 2
	a.commit(second)
	a.commit(catalog.Commit{Revision: 3, Token: greenToken()})
	for i, c := range later {
		c.Revision = uint64(4 + i)
		a.commit(c)
	}
	return a.compare(writes)
}

// sets is a commit that sets keys.
func sets(token fence.Token, keys ...string) catalog.Commit {
	c := catalog.Commit{Token: token}
	for _, key := range keys {
		c.Changes = append(c.Changes, catalog.Change{Collection: collection, Key: key, Value: []byte(valueOf(key))})
	}
	return c
}

func acked(key string, token fence.Token) write {
	return write{key: key, token: token, fate: acknowledged}
}

func TestALedgerThatAgreesWithTheStoreHasNoFindings(t *testing.T) {
	f := found([]write{acked("a", blueToken()), acked("b", greenToken()), {key: "c", fate: unknown}, {key: "d", fate: refused}},
		sets(blueToken(), "a"), sets(greenToken(), "b", "c"))
	require.Zero(t, f.lost+f.duplicated+f.stale+f.denied)
	require.Equal(t, 4, f.commits)
}

func TestAnAcknowledgedWriteThatIsNotInTheLogIsLost(t *testing.T) {
	f := found([]write{acked("a", blueToken())}, sets(blueToken()))
	require.Equal(t, 1, f.lost)
}

func TestAnAcknowledgedWriteWithAnotherValueIsLost(t *testing.T) {
	c := sets(blueToken(), "a")
	c.Changes[0].Value = []byte("other")
	f := found([]write{acked("a", blueToken())}, c)
	require.Equal(t, 1, f.lost)
}

func TestAWriteThatIsThereTwiceIsDuplicatedWhetherItWasAcknowledgedOrNot(t *testing.T) {
	f := found([]write{acked("a", blueToken()), {key: "b", fate: unknown}},
		sets(blueToken(), "a", "b"), sets(greenToken(), "a", "b"))
	require.Equal(t, 2, f.duplicated)
}

func TestACommitBehindAHigherClaimIsStale(t *testing.T) {
	f := found(nil, sets(blueToken(), "a"), sets(blueToken(), "b"))
	require.Equal(t, 1, f.stale)
}

func TestAWriteThatAFencedServerAcknowledgedIsStaleUnderAnyTokenAndCountedOnce(t *testing.T) {
	f := found([]write{acked("b", blueToken()), acked("c", blueToken())},
		sets(blueToken(), "a"), sets(greenToken(), "b"), sets(blueToken(), "c"))
	require.Equal(t, 2, f.stale)
}

func TestAWriteThatWasRefusedAndIsThereIsFound(t *testing.T) {
	f := found([]write{{key: "a", fate: refused}}, sets(blueToken(), "a"))
	require.Equal(t, 1, f.denied)
}
