package leader_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/leader"
)

// standing returns what the board says of who leads.
func standing(t *testing.T, store driver.Store) leader.Standing {
	t.Helper()
	head, err := store.Head(t.Context())
	require.NoError(t, err)
	beat, err := leader.ReadBeat(t.Context(), store, catalog.Config{})
	require.NoError(t, err)
	return leader.StandingOf(head, beat, time.Now())
}

func TestTheHeartbeatSaysAtOnceWhetherTheHolderServes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		require.Equal(t, leader.StandingUnclaimed, standing(t, store).State)
		p := start(t, store, config(1))
		p.await(t, leader.Leading)
		p.words.Load().NotServing("the cache is cold")
		elapse(50 * time.Millisecond)
		s := standing(t, store)
		require.Equal(t, leader.StandingNotServing, s.State)
		require.Equal(t, "Leading: leads, not serving: the cache is cold", s.Why)
		for range 3 {
			for _, serves := range []bool{true, false} {
				if serves {
					p.words.Load().Serving()
				} else {
					p.words.Load().NotServing("the cache is cold")
				}
				elapse(50 * time.Millisecond)
				require.Equal(t, serves, standing(t, store).State == leader.StandingServing)
			}
		}
		require.NoError(t, p.end(t))
		s = standing(t, store)
		require.Equal(t, leader.StandingLeft, s.State)
		require.Equal(t, "its holder has given it back", s.Why)
	})
}

func TestAProcessThatServesSaysSoWithinMillisecondsOfItsClaim(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		p := start(t, store, config(1))
		for p.Status().Phase != leader.Leading {
			elapse(time.Millisecond)
		}
		elapse(100 * time.Millisecond)
		require.Equal(t, leader.StandingServing, standing(t, store).State)
		require.NoError(t, p.end(t))
	})
}

// A former is a heartbeat as builds wrote it that said nothing of serving.
type former struct {
	Claim driver.ID   `json:"claim"`
	Token fence.Token `json:"token"`
	Seq   uint64      `json:"seq"`
	At    time.Time   `json:"at"`
	Admin string      `json:"admin"`
	Left  bool        `json:"left"`
}

func TestAHeartbeatOfAnOlderBuildSaysNothingOfServing(t *testing.T) {
	t.Parallel()
	store := memory.New()
	board := catalog.NewBoard(store, catalog.Config{})
	first, second := driver.NewID(), driver.NewID()
	write := func(claim driver.ID, seq uint64, said *leader.HolderState) leader.Beat {
		var err error
		if said != nil {
			_, err = catalog.UpdateNote(t.Context(), board, "holder", func(b *leader.Beat) error {
				*b = leader.Beat{Claim: claim, Seq: seq, At: time.Now(), Said: said}
				return nil
			})
		} else {
			_, err = catalog.UpdateNote(t.Context(), board, "holder", func(b *former) error {
				*b = former{Claim: claim, Seq: seq, At: time.Now()}
				return nil
			})
		}
		require.NoError(t, err)
		beat, err := leader.ReadBeat(t.Context(), store, catalog.Config{})
		require.NoError(t, err)
		return beat
	}
	said := &leader.HolderState{Claim: first, Seq: 7, Serving: true}
	state, ok := write(first, 7, said).State()
	require.True(t, ok)
	require.True(t, state.Serving)
	beat := write(second, 7, nil)
	require.NotNil(t, beat.Said, "an older build keeps what it does not know")
	_, ok = beat.State()
	require.False(t, ok, "of another claim")
	_, ok = write(first, 8, nil).State()
	require.False(t, ok, "of an earlier heartbeat")
}

func TestWhoLeadsAndServesIsJudgedByHeadAndHeartbeat(t *testing.T) {
	t.Parallel()
	now := time.Now()
	mine, other := driver.NewID(), driver.NewID()
	head := driver.Head{Revision: 1, Commit: mine, Claim: driver.Claim{
		ID: mine, Token: fence.Token{Generation: generation.Generation(7), Epoch: 41}, Holder: fence.Holder{Name: "blue", Since: now.Add(-time.Hour)},
	}}
	said := func(phase leader.Phase, serving bool) *leader.HolderState {
		return &leader.HolderState{Claim: mine, Seq: 9, Phase: phase.String(), Serving: serving, Lease: 3, Reason: "why", Since: now.Add(-time.Minute)}
	}
	beat := func(age time.Duration, left bool, said *leader.HolderState) leader.Beat {
		return leader.Beat{Claim: mine, Seq: 9, At: now.Add(-age), Left: left, Said: said}
	}
	for name, c := range map[string]struct {
		head driver.Head
		beat leader.Beat
		want leader.StandingState
		why  string
	}{
		"nobody ever claimed":                 {driver.Head{}, beat(0, false, nil), leader.StandingUnclaimed, "nobody ever claimed"},
		"no heartbeat":                        {head, leader.Beat{}, leader.StandingClaimed, "no heartbeat of this claim"},
		"an earlier holder's heartbeat":       {head, leader.Beat{Claim: other, At: now, Left: true}, leader.StandingClaimed, "no heartbeat of this claim"},
		"an older build":                      {head, beat(time.Second, false, nil), leader.StandingClaimed, "does not say whether it serves"},
		"serving":                             {head, beat(time.Second, false, said(leader.Leading, true)), leader.StandingServing, "says so"},
		"a clock that is behind the writer":   {head, beat(-time.Hour, false, said(leader.Leading, true)), leader.StandingServing, "says so"},
		"not serving":                         {head, beat(time.Second, false, said(leader.Unconfirmed, false)), leader.StandingNotServing, "Unconfirmed: why"},
		"given back":                          {head, beat(time.Hour, true, said(leader.Leading, false)), leader.StandingLeft, "given it back"},
		"given back by an older build":        {head, beat(time.Hour, true, nil), leader.StandingLeft, "given it back, or offers it"},
		"silent for more than its lease":      {head, beat(4*time.Second, false, said(leader.Leading, true)), leader.StandingSilent, "a lease is 3s"},
		"silent, of an older build":           {head, beat(8*time.Second, false, nil), leader.StandingSilent, "a lease is 7.5s"},
		"not yet silent, of an older build":   {head, beat(7*time.Second, false, nil), leader.StandingClaimed, "does not say"},
		"what is left of an earlier holder's": {head, beat(time.Second, false, &leader.HolderState{Claim: other, Seq: 9, Serving: true}), leader.StandingClaimed, "does not say"},
	} {
		s := leader.StandingOf(c.head, c.beat, now)
		require.Equal(t, c.want, s.State, name)
		require.Contains(t, s.Why, c.why, name)
	}
}

// Old and new builds share the board: a field may be added, and none changed.
func TestWhatAHolderSaysOfItselfIsFrozen(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	text, err := json.Marshal(leader.HolderState{Claim: driver.ID{1, 2}, Seq: 9, Phase: "Leading", Since: at, Reason: "r", Serving: true, Lease: 7.5})
	require.NoError(t, err)
	require.Equal(t, `{"claim":"01020000000000000000000000000000","seq":9,"phase":"Leading","since":"2026-01-02T03:04:05.000006Z","reason":"r","serving":true,"lease_seconds":7.5}`, string(text))
}
