package leader_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

func TestPreflightSaysWhetherTheHolderGivesSignsOfLife(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	for _, row := range []struct {
		beat  leader.Beat
		grade driver.Grade
		says  string
	}{
		{leader.Beat{}, driver.Warning, "none of the newest claim"},
		{leader.Beat{Claim: driver.NewID(), Seq: 1, At: time.Now()}, driver.Warning, "none of the newest claim"},
		{leader.Beat{Claim: c.Claim().ID, Seq: 2, At: time.Now().Add(-time.Hour)}, driver.Warning, "old"},
		{leader.Beat{Claim: c.Claim().ID, Seq: 3, At: time.Now(), Left: true}, driver.Warning, "has left"},
		{leader.Beat{Claim: c.Claim().ID, Seq: 4, At: time.Now()}, driver.Fine, "ago"},
		{leader.Beat{Claim: c.Claim().ID, Seq: 5, At: time.Now(), Said: &leader.HolderState{Claim: c.Claim().ID, Seq: 5, Process: gone(t)}}, driver.Warning, "has ended"},
	} {
		_, err := catalog.UpdateNote(t.Context(), catalog.NewBoard(store, catalog.Config{}), "holder", func(b *leader.Beat) error {
			*b = row.beat
			return nil
		})
		require.NoError(t, err)
		f := checked(t, store, 2, leader.CheckHeartbeat)
		require.Equal(t, row.grade, f.Grade, f.Detail)
		require.Contains(t, f.Detail, row.says)
	}
}

func TestPreflightSaysWhichGenerationIsPromoted(t *testing.T) {
	t.Parallel()
	store := memory.New()
	c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Equal(t, driver.Fine, checked(t, store, 2, leader.CheckPromotion).Grade)
	_, err = leader.Promote(t.Context(), store, catalog.Config{}, 3, leader.PromoteOptions{By: "bob", Force: true})
	require.NoError(t, err)
	for mine, want := range map[generation.Generation]driver.Grade{2: driver.Failure, 3: driver.Warning, 4: driver.Warning} {
		f := checked(t, store, mine, leader.CheckPromotion)
		require.Equal(t, want, f.Grade, f.Detail)
		require.Contains(t, f.Detail, "bob")
	}
	c, err = catalog.Open(t.Context(), store, catalog.Config{Generation: 3})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Equal(t, driver.Fine, checked(t, store, 4, leader.CheckPromotion).Grade)
}

// checked returns one finding of a preflight of generation g.
func checked(t *testing.T, store driver.Store, g generation.Generation, name string) driver.Finding {
	t.Helper()
	for _, f := range leader.Preflight(t.Context(), store, catalog.Config{Generation: g}).Checks {
		if f.Name == name {
			return f
		}
	}
	require.FailNow(t, "no check "+name)
	return driver.Finding{}
}
