package stacks

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func waitHere(ready chan<- struct{}, until <-chan struct{}) {
	close(ready)
	<-until
}

func TestTheGoroutinesThatAreMeantComeFirstAndNoneIsMissing(t *testing.T) {
	t.Parallel()
	until := make(chan struct{})
	defer close(until)
	for range 3 {
		ready := make(chan struct{})
		go waitHere(ready, until)
		<-ready
	}
	all := All("stacks.waitHere")
	goroutines := bytes.Split(all, []byte("\n\n"))
	require.Greater(t, len(goroutines), 3)
	for i, g := range goroutines {
		require.Equal(t, i < 3, bytes.Contains(g, []byte("stacks.waitHere")), "goroutine %d of %d:\n%s", i, len(goroutines), g)
	}
	require.Contains(t, string(All("")), "stacks.All", "the caller's own")
}
