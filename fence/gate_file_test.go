package fence_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// The variables by which a child that is to be killed learns its part.
const (
	gateVar  = "FENCEPOST_GATE_FILE"
	pointVar = "FENCEPOST_GATE_POINT"
)

// TestMain plays the child of a test that kills it.
func TestMain(m *testing.M) {
	if path := os.Getenv(gateVar); path != "" {
		playGateChild(path, os.Getenv(pointVar))
		os.Exit(1)
	}
	syscall.Umask(0o022) // whoever runs the tests
	os.Exit(m.Run())
}

// playGateChild raises a register from g7.e41 to g8.e42, and is killed at a point.
func playGateChild(path, point string) {
	die := func(at string) {
		if at == point {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	h := headAt(token(7, 41))
	g, err := fence.OpenGate(path, fence.GateConfig{Newest: h.newest})
	if err != nil {
		os.Stderr.WriteString(err.Error())
		return
	}
	work := func(t fence.Token) {
		a, err := g.Admit(context.Background(), "orders", t)
		if err != nil {
			os.Stderr.WriteString(err.Error())
			return
		}
		os.Stdout.WriteString("let through " + t.String() + "\n")
		if t == token(8, 42) {
			die("let through")
		}
		a.Release()
	}
	work(token(7, 41))
	fence.AtGateSteps(g, die)
	h.claim(token(8, 42))
	work(token(8, 42))
}

func TestARegisterIsDurableBeforeTheFirstRequestIsLetThrough(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"created", "written", "renamed", "saved", "let through"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "registers")
			through := killGateChild(t, path, point)
			require.Equal(t, point == "let through", strings.Contains(through, "g8.e42"))
			h := headAt(fence.Token{})
			h.set(fence.Token{}, errors.New("out of reach"))
			g, err := fence.OpenGate(path, fence.GateConfig{Newest: h.newest})
			require.NoError(t, err)
			defer func() { require.NoError(t, g.Close()) }()
			if strings.Contains(through, "g8.e42") {
				require.ErrorIs(t, refused(t, g, "orders", token(7, 41)), fence.ErrFenced)
			}
			switch registers := g.Registers(); registers[0].Token {
			case token(7, 41):
				require.Contains(t, []string{"created", "written"}, point)
				admit(t, g, "orders", token(7, 41)).Release()
			default:
				require.Equal(t, token(8, 42), registers[0].Token)
				require.Equal(t, someone().Name, registers[0].By.Name)
			}
			h.claim(token(8, 42))
			admit(t, g, "orders", token(8, 42)).Release()
		})
	}
}

// killGateChild starts a child that dies at point, and returns what it said.
func killGateChild(t *testing.T, path, point string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), gateVar+"="+path, pointVar+"="+point)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var said []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		said = append(said, lines.Text())
	}
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit, stderr.String())
	status, ok := exit.Sys().(syscall.WaitStatus)
	require.True(t, ok && status.Signal() == syscall.SIGKILL, "%q was not reached: %s", point, stderr.String())
	return strings.Join(said, "\n")
}

func openGate(t *testing.T, path string, h *head) *fence.Gate {
	t.Helper()
	g, err := fence.OpenGate(path, fence.GateConfig{Newest: h.newest})
	require.NoError(t, err)
	return g
}

func TestARegisterSurvivesAndItsResetToo(t *testing.T) {
	t.Parallel()
	path, h := filepath.Join(t.TempDir(), "registers"), headAt(token(8, 42))
	g := openGate(t, path, h)
	admit(t, g, "orders", token(8, 42)).Release()
	admit(t, g, "stock", token(8, 42)).Release()
	require.NoError(t, g.Close())
	require.NoError(t, g.Close())
	g = openGate(t, path, h)
	require.Equal(t, someone().Since.UTC(), g.Registers()[0].By.Since.UTC())
	require.ErrorIs(t, refused(t, g, "orders", token(7, 41)), fence.ErrFenced)
	require.Zero(t, h.looks.Load()-2)
	require.NoError(t, g.Reset(t.Context(), "orders"))
	require.NoError(t, g.Close())
	g = openGate(t, path, h)
	require.Len(t, g.Registers(), 1)
	require.NoError(t, g.Close())
}

func TestTwoProcessesDoNotShareAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registers")
	g := openGate(t, path, headAt(token(8, 42)))
	for range 2 {
		_, err := fence.OpenGate(path, fence.GateConfig{Newest: headAt(token(8, 42)).newest})
		require.ErrorIs(t, err, fence.ErrGateInUse)
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
		admit(t, g, "orders", token(8, 42)).Release() // the file is replaced, its lock is not
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), gateVar+"="+path, pointVar+"=none")
	said, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(said), fence.ErrGateInUse.Error())
	require.NoError(t, g.Close())
	require.NoError(t, openGate(t, path, headAt(token(8, 42))).Close())
}

func TestRegistersThatRiseTogetherAreSavedTogether(t *testing.T) {
	t.Parallel()
	path, h := filepath.Join(t.TempDir(), "registers"), headAt(token(8, 42))
	g := openGate(t, path, h)
	first, saves := make(chan struct{}), 0
	fence.AtGateSteps(g, func(point string) {
		if point == "saved" {
			if saves++; saves == 1 {
				<-first
			}
		}
	})
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() { admit(t, g, fmt.Sprintf("tenant %d", i), token(8, 42)).Release() })
	}
	require.Eventually(t, func() bool { return fence.WaitingToBeSaved(g) == 299 }, time.Minute, time.Millisecond)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, g.Reset(ended, "tenant 1"), fence.ErrNotSaved)
	require.Equal(t, 299, fence.WaitingToBeSaved(g), "what was given up is not saved later")
	close(first)
	wg.Wait()
	require.Equal(t, 2, saves)
	require.NoError(t, g.Close())
	g = openGate(t, path, h)
	require.Len(t, g.Registers(), 300)
	require.NoError(t, g.Close())
}

func TestALockEndsWithItsGateThoughAChildWasForkedMeanwhile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registers")
	g := openGate(t, path, headAt(token(8, 42)))
	childs, err := syscall.Dup(fence.GateLock(g)) // a child has a copy until it executes its program
	require.NoError(t, err)
	defer syscall.Close(childs)
	require.NoError(t, g.Close())
	require.NoError(t, openGate(t, path, headAt(token(8, 42))).Close())
}

func TestAFileThatCannotBeReadIsNeverTakenForAnEmptyOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "registers")
	refusedFile := func(why string) {
		t.Helper()
		_, err := fence.OpenGate(path, fence.GateConfig{Newest: headAt(token(8, 42)).newest, MaxResources: 2})
		require.ErrorIs(t, err, fence.ErrGateFile, why)
		require.ErrorContains(t, err, "remove it while no process has it open")
		require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err))
		require.Less(t, len(err.Error()), 600)
	}
	for _, text := range malformedFiles() {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		refusedFile(text)
	}
	require.NoError(t, os.Truncate(path, 33<<20))
	refusedFile("too large")
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink(filepath.Join(dir, "elsewhere"), path))
	refusedFile("a link")
	require.NoError(t, os.Remove(path))
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	refusedFile("a pipe")
	require.NoError(t, os.Remove(path))
	require.NoError(t, openGate(t, path, headAt(token(8, 42))).Close(), "removed: all registers are reset")
}

func malformedFiles() []string {
	return []string{
		"", "{}", "null", "[]", "x", `{"format":"fencepost gate 1"}`, `{"format":"fencepost gate 2","registers":{}}`,
		`{"format":"fencepost gate 1","registers":{}}{}`, `{"format":"fencepost gate 1","registers":{},"more":1}`,
		`{"format":"fencepost gate 1","registers":{"orders":{}}}`, `{"format":"fencepost gate 1","registers":{"orders":{"token":"g0.e0"}}}`,
		`{"format":"fencepost gate 1","registers":{"":{"token":"g1.e1"}}}`, `{"format":"fencepost gate 1","registers":{"a\n":{"token":"g1.e1"}}}`,
		`{"format":"fencepost gate 1","registers":{"orders":{"token":"g1.e01"}}}`, `{"format":"fencepost gate 1","registers":{"orders":{"token":7}}}`,
		`{"format":"fencepost gate 1","registers":{"a":{"token":"g1.e1"},"b":{"token":"g1.e1"},"c":{"token":"g1.e1"}}}`,
		`{"format":"fencepost gate 1","registers":{"orders":{"token":"g1.e1"`, strings.Repeat("[", 100000), "\x00\x00\x00\x00",
	}
}

func FuzzAFileOfRegistersIsReadOrRefused(f *testing.F) {
	for _, text := range append(malformedFiles(), `{"format":"fencepost gate 1","registers":{"orders":{"token":"g7.e41","holder":{"name":"db-2"}}}}`) {
		f.Add([]byte(text))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(dir, "registers")
		require.NoError(t, os.WriteFile(path, text, 0o600))
		g, err := fence.OpenGate(path, fence.GateConfig{Newest: headAt(token(8, 42)).newest})
		if err != nil {
			require.ErrorIs(t, err, fence.ErrGateFile)
			return
		}
		for _, r := range g.Registers() {
			require.False(t, r.Token.IsZero())
		}
		require.NoError(t, g.Close())
	})
}

func TestAFileOfRegistersHasTheOwnerOfItsFolderAndKeepsItsMode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o750))
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 { // often an operator's command as root is the first
		uid, gid = 65534, 65534
		require.NoError(t, os.Chown(dir, uid, gid))
	}
	path := filepath.Join(dir, "registers")
	g := openGate(t, path, headAt(token(8, 42)))
	admit(t, g, "orders", token(8, 42)).Release()
	check := func(name string, mode os.FileMode) {
		t.Helper()
		info, err := os.Stat(name)
		require.NoError(t, err)
		stat := info.Sys().(*syscall.Stat_t)
		require.Equal(t, []int{uid, gid}, []int{int(stat.Uid), int(stat.Gid)}, name)
		require.Equal(t, mode, info.Mode().Perm(), name)
	}
	check(path, 0o640)
	check(path+"-lock", 0o600) // whoever only reads the registers can't keep others out
	require.NoError(t, os.Chmod(path, 0o600))
	admit(t, g, "stock", token(8, 42)).Release()
	check(path, 0o600)
	require.NoError(t, g.Close())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2)
}

func TestARegisterThatCanNotBeSavedLetsNobodyThrough(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "folder")
	require.NoError(t, os.Mkdir(dir, 0o700))
	h := headAt(token(7, 41))
	g := openGate(t, filepath.Join(dir, "registers"), h)
	admit(t, g, "orders", token(7, 41)).Release()
	require.NoError(t, os.Rename(dir, dir+" moved"))
	h.claim(token(8, 42))
	err := refused(t, g, "orders", token(8, 42))
	require.ErrorIs(t, err, fence.ErrNotSaved)
	require.Equal(t, exitcodes.Retry, exitcodes.Of(err))
	require.Error(t, g.Reset(t.Context(), "orders"))
	admit(t, g, "orders", token(7, 41)).Release()
	require.NoError(t, os.Rename(dir+" moved", dir))
	admit(t, g, "orders", token(8, 42)).Release()
	require.NoError(t, g.Close())
}

// TestARegisterIsOnDiskBeforeItLetsAnybodyThrough has each sync fail once. A
// power cut takes back what was not synced, so a register could fall.
func TestARegisterIsOnDiskBeforeItLetsAnybodyThrough(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, h := filepath.Join(dir, "registers"), headAt(token(7, 41))
	g := openGate(t, path, h)
	admit(t, g, "orders", token(7, 41)).Release()
	h.claim(token(8, 42))
	failing := []string{path + "-new", dir} // in this order: the name must not be durable before the content is
	fence.SyncsOfGate(g, func(f *os.File) error {
		if len(failing) > 0 && f.Name() == failing[0] {
			failing = failing[1:]
			return syscall.EIO
		}
		return f.Sync()
	})
	for range 2 {
		require.ErrorIs(t, refused(t, g, "orders", token(8, 42)), fence.ErrNotSaved)
		require.Equal(t, token(7, 41), g.Registers()[0].Token)
	}
	require.Empty(t, failing)
	admit(t, g, "orders", token(8, 42)).Release()
	require.NoError(t, g.Close())
}

func TestWhatIsKeptOfAHolderIsBounded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "registers")
	h := headAt(token(8, 42))
	long := strings.Repeat("ü", 10000)
	g, err := fence.OpenGate(path, fence.GateConfig{Newest: func(ctx context.Context, r string) (fence.Token, fence.Holder, error) {
		newest, by, err := h.newest(ctx, r)
		by.Name, by.Address, by.Build = long, "\xff"+long, ""
		return newest, by, err
	}})
	require.NoError(t, err)
	admit(t, g, "orders", token(8, 42)).Release()
	require.NoError(t, g.Close())
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(1000))
	require.NoError(t, openGate(t, path, h).Close())
}
