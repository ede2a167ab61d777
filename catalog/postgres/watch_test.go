package postgres

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/internal/testpg"
)

func TestAWatcherLeavesAServerThatTheStoreHasLeft(t *testing.T) {
	s, err := Open(t.Context(), testpg.URL(t), Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	s.ear.quiet = time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := s.readServer(ctx, testpg.Connect(t, s.pool.Config().ConnString()))
	require.NoError(t, err)
	s.place.Store(&place{started: st.started})
	heard := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx, func() { heard <- struct{}{} }) }()
	<-heard
	version, err := s.Post(ctx, driver.Note{Key: "k", Value: []byte("v")})
	require.NoError(t, err)
	<-heard
	require.NotZero(t, version)
	s.place.Store(&place{started: st.started.Add(time.Microsecond)})
	require.ErrorIs(t, <-done, errMoved)
}
