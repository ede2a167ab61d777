package identity

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The test binary plays the processes that are looked for.
func TestMain(m *testing.M) {
	if len(os.Args) != 2 || !strings.HasPrefix(os.Args[1], "play-") {
		os.Exit(m.Run())
	}
	if text := os.Getenv(lookVar); text != "" { // it looks for another user's process
		if os.Getuid() == 0 {
			_ = syscall.Setuid(65534) // what it sees then says whether that is so
		}
		p, err := Parse(text)
		ended, why := p.Ended()
		fmt.Println(err, ended, syscall.Kill(p.PID(), 0), why)
		os.Exit(0)
	}
	me, err := Self()
	fmt.Println(me, err)
	if os.Args[1] == "play-headless" { // its main thread ends, and the process goes on
		_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
	}
	<-time.After(time.Hour)
}

// What locks its thread before main begins has the main goroutine stay on the main
// thread.
var _ = func() bool {
	runtime.LockOSThread()
	return true
}()

// lookVar has the identity of a process for which a played one looks.
const lookVar = "FENCEPOST_IDENTITY_TEST_LOOK"

// play starts this binary, beneath a command if one is given, and returns the
// identity that it has of itself.
func play(t *testing.T, role string, under ...string) (*exec.Cmd, Process) {
	t.Helper()
	cmd, line := begin(t, role, under...)
	text, _, _ := strings.Cut(line, " ")
	p, err := Parse(text)
	require.NoError(t, err, line)
	return cmd, p
}

func begin(t *testing.T, role string, under ...string) (*exec.Cmd, string) {
	t.Helper()
	line := append(under, os.Args[0], role)
	cmd := exec.Command(line[0], line[1:]...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // most have ended
	said, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, "%s: %s", line, stderr.String())
	return cmd, said
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // says that it was killed
}

func requireThere(t *testing.T, p Process) {
	t.Helper()
	proven, why := p.Ended()
	require.False(t, proven, why)
}

func TestAProcessIsProvenToHaveEndedOnceItHas(t *testing.T) {
	t.Parallel()
	cmd, p := play(t, "play-sleeper")
	require.Equal(t, cmd.Process.Pid, p.PID())
	child, err := Child(p.PID())
	require.NoError(t, err)
	require.Equal(t, p, child, "as its parent and as itself")
	requireThere(t, p)

	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	require.Eventually(t, func() bool { s, err := readStat(p.PID()); return err == nil && s.state == 'T' }, time.Minute, time.Millisecond)
	requireThere(t, p)

	require.NoError(t, cmd.Process.Kill())
	var why string
	require.Eventually(t, func() (proven bool) { proven, why = p.Ended(); return proven }, time.Minute, time.Millisecond)
	require.Contains(t, why, "only the exit status", "nobody has waited for it")
	child, err = Child(p.PID())
	require.NoError(t, err)
	require.Equal(t, p, child, "its pid is not free")
	_ = cmd.Wait() // says that it was killed
	proven, why := p.Ended()
	require.True(t, proven)
	require.Contains(t, why, "no process has its pid")
}

func TestAWatchIsToldOfAnEndAndOfNothingElse(t *testing.T) {
	t.Parallel()
	cmd, p := play(t, "play-sleeper")
	ended := make(chan error, 1)
	go func() {
		_, err := p.Watch(t.Context())
		ended <- err
	}()
	ctx, cancel := context.WithCancel(t.Context())
	late := make(chan error, 1)
	go func() { late <- awaitEnd(ctx, p.PID()) }()
	cancel()
	require.ErrorIs(t, <-late, os.ErrDeadlineExceeded)
	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	require.Empty(t, ended)
	kill(t, cmd)
	require.NoError(t, <-ended)
}

func TestAProcessWhoseMainThreadEndedAloneIsThere(t *testing.T) {
	t.Parallel()
	cmd, p := play(t, "play-headless")
	require.Eventually(t, func() bool { s, err := readStat(p.PID()); return err == nil && s.state == 'Z' }, time.Minute, time.Millisecond)
	requireThere(t, p)
	fd, err := unix.PidfdOpen(p.PID(), 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	over, err := readable(fd)
	require.NoError(t, err)
	require.False(t, over)
	kill(t, cmd)
	proven, why := p.Ended()
	require.True(t, proven, why)
}

func TestAPidThatIsAnotherProcessesNowIsAProof(t *testing.T) {
	t.Parallel()
	_, p := play(t, "play-sleeper")
	p.start-- // of its predecessor
	proven, why := p.Ended()
	require.True(t, proven)
	require.Contains(t, why, "belongs to another process")
	why, err := p.Watch(t.Context())
	require.NoError(t, err)
	require.Contains(t, why, "belongs to another process")
}

// If the system refuses namespaces, the test asserts the refusal.
func TestAProcessOfAnotherPidNamespaceIsNoProof(t *testing.T) {
	t.Parallel()
	unshare := []string{"unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"}
	if out, err := exec.Command(unshare[0], append(unshare[1:], "--mount-proc", "true")...).CombinedOutput(); err != nil {
		require.Regexp(t, "not permitted|denied|No space|not found", fmt.Sprint(string(out), err))
		t.Log("no namespaces here: " + string(out))
		return
	}
	cmd, p := play(t, "play-sleeper", append(unshare, "--mount-proc")...)
	require.Equal(t, 1, p.PID(), "a pid that is another process's here")
	requireThere(t, p)
	_, err := p.Watch(t.Context())
	require.ErrorIs(t, err, ErrUnseen)
	kill(t, cmd)
	requireThere(t, p)

	_, said := begin(t, "play-sleeper", unshare...)
	require.Contains(t, said, "/proc is of another pid namespace")
}

func TestAProcessThatMayNotBeSignalledIsThere(t *testing.T) {
	first, err := Child(1) // nobody may signal it but root
	require.NoError(t, err)
	t.Setenv(lookVar, first.String())
	_, said := begin(t, "play-looker")
	require.Equal(t, "<nil> false operation not permitted process 1 is there\n", said)
}
