package catalog_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/fence"
)

func TestChangesGiveWhatTheHandleCommitsInOrderAndOfTheirCollectionsOnly(t *testing.T) {
	t.Parallel()
	c := holder(t, memory.New(), catalog.Config{Generation: 1})
	require.NoError(t, c.Update(t.Context(), set("before")))
	ch, err := c.Changes("c", "d")
	require.NoError(t, err)
	require.Empty(t, ch.Wake())
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error { return catalog.Bytes("other").Set(tx, "k", nil) }))
	require.Empty(t, ch.Wake(), "of another collection")
	require.NoError(t, c.Update(t.Context(), set("a")))
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error {
		if _, err := catalog.Bytes("c").Delete(tx, "before"); err != nil {
			return err
		}
		return catalog.Bytes("d").Set(tx, "b", []byte("w"))
	}))
	refused := fmt.Errorf("refused")
	require.ErrorIs(t, c.Update(t.Context(), func(tx *catalog.Tx) error { _ = set("never")(tx); return refused }), refused)
	<-ch.Wake()
	want := []catalog.Change{{Collection: "c", Key: "a", Value: []byte("v")}, {Collection: "c", Key: "before", Delete: true}, {Collection: "d", Key: "b", Value: []byte("w")}}
	require.Equal(t, want, ch.Take())
	require.Empty(t, ch.Take())
	_, err = c.Changes("d")
	require.ErrorIs(t, err, catalog.ErrObserved)
	ch.Stop()
	require.NoError(t, c.Update(t.Context(), set("z")))
	require.Empty(t, ch.Take())
	_, err = c.Changes("d")
	require.NoError(t, err)
}

func TestAViewAndTheChangesBegunBeforeItLeaveNothingOut(t *testing.T) {
	t.Parallel()
	c := holder(t, memory.New(), catalog.Config{Generation: 1})
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				_ = c.Update(ctx, set(fmt.Sprintf("%d-%06d", w, i))) // until the end of ctx
			}
		})
	}
	for range 50 {
		ch, err := c.Changes("c")
		require.NoError(t, err)
		known := map[string]bool{}
		for _, key := range keys(t, c) {
			known[key] = true
		}
		<-ch.Wake()
		ch.Stop()
		for _, change := range ch.Take() {
			known[change.Key] = true
		}
		for w := range 4 { // each writer's keys have no gap
			n := 0
			for known[fmt.Sprintf("%d-%06d", w, n)] {
				n++
			}
			total := 0
			for key := range known {
				if key[0] == byte('0'+w) {
					total++
				}
			}
			require.Equal(t, total, n, "writer %d", w)
		}
	}
	cancel()
	writers.Wait()
}

func TestATxKnowsTheTokenThatItIsCommittedUnder(t *testing.T) {
	t.Parallel()
	seen := fence.Token{Epoch: 99}
	c := holder(t, memory.New(), catalog.Config{Generation: 3, Migrations: []catalog.Migration{{Version: 1, Name: "first", Up: func(tx *catalog.Tx) error {
		seen = tx.Token()
		return nil
	}}}})
	require.Zero(t, seen, "a migration runs before its token is known")
	require.NoError(t, c.Update(t.Context(), func(tx *catalog.Tx) error { seen = tx.Token(); return nil }))
	require.Equal(t, c.Token(), seen)
}

func TestABoardIsWatchedByWhoeverWritesToIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		c, err := catalog.Open(t.Context(), store, catalog.Config{Generation: 1})
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		ctx, cancel := context.WithCancel(t.Context())
		woken, ended := make(chan struct{}, 100), make(chan struct{})
		go func() {
			defer close(ended)
			c.Board().Watch(ctx, func() { woken <- struct{}{} })
		}()
		<-woken // it has begun
		synctest.Wait()
		for len(woken) > 0 {
			<-woken
		}
		_, err = store.Open().Post(ctx, driver.Note{Key: "k", Value: []byte("{}")})
		require.NoError(t, err)
		<-woken
		cancel()
		<-ended
	})
}
