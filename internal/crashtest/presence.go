package crashtest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
)

// presentVar names the claim that a child is to show, until it is killed.
const presentVar = "FENCEPOST_CRASH_PRESENT"

// show is the child's part: it says when others can see it.
func show(where, claim string, open Open) error {
	var id driver.ID
	if err := id.UnmarshalText([]byte(claim)); err != nil {
		return err
	}
	store, err := open(where)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	return store.(driver.Presenter).Present(ctx, id, func() { fmt.Println("shown") })
}

// RunPresence kills processes that show a claim, with SIGKILL, until the watch of
// another one tells of a death, which must come to pass within patience of it.
// Each is let live for longer than the one before, since a watch may take a
// moment to see it. Where must have been claimed.
func RunPresence(t *testing.T, where string, open Open, patience time.Duration) {
	store, err := open(where)
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	ctx, cancel := context.WithCancel(t.Context())
	claim := driver.NewID()
	lost, done := make(chan struct{}, 100), make(chan error, 1)
	go func() {
		done <- store.(driver.PresenceWatcher).WatchPresence(ctx, claim, func() { lost <- struct{}{} })
	}()
	defer func() { cancel(); <-done }()
	for life := 100 * time.Millisecond; life < bound; life *= 4 {
		dead := startShowing(t, where, claim)
		require.False(t, within(lost, life), "lost was called, and the process lives")
		dead()
		if begun := time.Now(); within(lost, patience) {
			t.Logf("a death was told after %v", time.Since(begun).Round(time.Millisecond))
			return
		}
	}
	require.FailNow(t, "no death was told")
}

// within reports whether there is news before so much time has passed.
func within(news <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-news:
		return true
	case <-timer.C:
		return false
	}
}

// startShowing starts a child that shows claim, and returns what kills it.
func startShowing(t *testing.T, where string, claim driver.ID) (kill func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), whereVar+"="+where, presentVar+"="+claim.String())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		_ = cmd.Wait() // its errors are all there then
	}
	require.NoError(t, err, "%s", &stderr)
	require.Equal(t, "shown\n", line)
	return func() {
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
	}
}
