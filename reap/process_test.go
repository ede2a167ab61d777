package reap_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	"github.com/fencepost/fencepost/reap"
)

// The variables by which a child learns its part, and where to play it.
const (
	partVar   = "FENCEPOST_REAP_PART"
	folderVar = "FENCEPOST_REAP_FOLDER"
)

func TestMain(m *testing.M) {
	if part := os.Getenv(partVar); part != "" {
		if err := child(part, os.Getenv(folderVar)); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is one process of several. It says when it is ready, or when it waits for the lock.
func child(part, folder string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ready := func() { fmt.Println("ready") }
	onWait := func(w reap.Wait) {
		if w.Reason == reap.WaitLocked {
			ready()
		}
	}
	lock := reap.HostLock{Path: filepath.Join(folder, "lock"), Token: token(8)}
	switch part {
	case "wait":
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	case "hold", "hold and start another":
		held, err := lock.Lock(ctx)
		if err != nil {
			return err
		}
		if part != "hold" {
			other := exec.Command(os.Args[0])
			other.Env = append(os.Environ(), partVar+"=wait")
			other.Stdin = os.Stdin // it lives as long as the test holds the other end
			if err := other.Start(); err != nil {
				return err
			}
		}
		ready()
		_, err = io.Copy(io.Discard, os.Stdin)
		return errors.Join(err, held.Unlock())
	case "pass", "pass at start-up":
		p := reap.Policy{Lock: lock.Path, SkipIfLocked: part != "pass", OnWait: onWait}
		if p.SkipIfLocked {
			ready()
		}
		r, err := reap.Pass(ctx, folderSource(folder), token(8), p)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	case "pass without a file descriptor":
		ready()
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Max: 1 << 8}); err != nil {
			return err
		}
		r, err := reap.Pass(ctx, folderSource(folder), token(8), reap.Policy{Lock: lock.Path})
		_, perr := fmt.Println(r.Stopped, exitcodes.CodeOf(err), errors.Is(err, syscall.EMFILE))
		return perr
	case "flight", "flight with an age", "flight that is slow":
		f := reap.Flight{Dir: folder, Name: "call", OnWait: onWait}
		if part == "flight with an age" {
			f.MaxAge = time.Minute
		}
		result, err := f.Do(ctx, func(context.Context) ([]byte, error) {
			err := note(folder, "calls", 0)
			if part == "flight that is slow" {
				ready()
				_, cerr := io.Copy(io.Discard, os.Stdin)
				err = errors.Join(err, cerr)
			}
			return []byte("the result"), err
		})
		if err == nil && string(result) != "the result" {
			err = fmt.Errorf("got %q", result)
		}
		return err
	default:
		return fmt.Errorf("no such part: %q", part)
	}
}

// note counts a call in a file, and takes some time. It fails if two are in it at once.
func note(folder, name string, took time.Duration) error {
	inside, err := os.OpenFile(filepath.Join(folder, "inside"), os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("two at once: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(folder, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(".")
	<-time.After(took)
	return errors.Join(err, f.Close(), inside.Close(), os.Remove(inside.Name()))
}

// noted returns how many calls were counted.
func noted(t *testing.T, folder, name string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, name))
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	return len(text)
}

// folderSource has an item for each file in the folder "items", all of generation 1.
func folderSource(folder string) reap.Source {
	items := filepath.Join(folder, "items")
	return reap.Source{
		List: func(context.Context) (found []reap.Item, err error) {
			if err := note(folder, "lists", 50*time.Millisecond); err != nil {
				return nil, err
			}
			all, err := os.ReadDir(items)
			for _, e := range all {
				found = append(found, reap.Item{ID: e.Name(), Made: token(1), At: old})
			}
			return found, err
		},
		Delete: func(_ context.Context, item reap.Item) error {
			if err := note(folder, "deletes", 0); err != nil {
				return err
			}
			err := os.Remove(filepath.Join(items, item.ID))
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w: %w", reap.ErrGone, err)
			}
			return err
		},
	}
}

// A process is a child that has been started.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr *strings.Builder
}

// start starts a child and waits until it is ready.
func start(t *testing.T, part, folder string) *process {
	t.Helper()
	p := &process{cmd: exec.CommandContext(t.Context(), os.Args[0]), stderr: &strings.Builder{}}
	p.cmd.Env = append(os.Environ(), partVar+"="+part, folderVar+"="+folder)
	p.cmd.Stderr = p.stderr
	in, err := p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.stdin, p.stdout = in, bufio.NewReader(out)
	require.NoError(t, p.cmd.Start())
	line, err := p.stdout.ReadString('\n')
	require.NoError(t, err, "%s: %s", part, p.stderr)
	require.Equal(t, "ready\n", line)
	return p
}

// end lets the child end, and returns what it printed.
func (p *process) end() (string, error) {
	cerr := p.stdin.Close()
	text, rerr := io.ReadAll(p.stdout)
	if err := errors.Join(p.cmd.Wait(), rerr, cerr); err != nil {
		return "", fmt.Errorf("%w: %s", err, p.stderr)
	}
	return string(text), nil
}

// several starts n children, and waits until each is ready.
func several(t *testing.T, n int, part, folder string) []*process {
	t.Helper()
	all := make([]*process, n)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i] = start(t, part, folder) })
	}
	wg.Wait()
	return all
}

func ended(t *testing.T, all []*process) (printed []string) {
	t.Helper()
	for _, p := range all {
		text, err := p.end()
		require.NoError(t, err)
		printed = append(printed, text)
	}
	return printed
}

// withItems returns a folder with some items.
func withItems(t *testing.T, n int) string {
	t.Helper()
	folder := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(folder, "items"), 0o700))
	for i := range n {
		require.NoError(t, os.WriteFile(filepath.Join(folder, "items", fmt.Sprintf("%03d", i)), nil, 0o600))
	}
	return folder
}

// processes is how many begin at once; the figure of 60 is measured by make bench.
const processes = 6

func TestProcessesThatBeginAtOnceOnOneHostMakeOneListing(t *testing.T) {
	t.Parallel()
	folder := withItems(t, 20)
	held, err := reap.HostLock{Path: filepath.Join(folder, "lock")}.TryLock()
	require.NoError(t, err)
	all := several(t, processes, "pass", folder)
	require.NoError(t, held.Unlock())
	deleted := 0
	for _, text := range ended(t, all) {
		var r reap.Report
		require.NoError(t, json.Unmarshal([]byte(text), &r))
		require.Contains(t, []reap.Stop{reap.StoppedDone, reap.StoppedShared}, r.Stopped)
		deleted += r.Deleted
	}
	require.Equal(t, 20, deleted)
	require.Equal(t, 20, noted(t, folder, "deletes"), "none was wasted")
	require.Equal(t, 1, noted(t, folder, "lists"))
}

func TestAPassAtStartUpIsSkippedWithoutAListingIfAnotherProcessHasTheLock(t *testing.T) {
	t.Parallel()
	folder := withItems(t, 3)
	holder := start(t, "hold", folder)
	for _, text := range ended(t, several(t, 2, "pass at start-up", folder)) {
		var r reap.Report
		require.NoError(t, json.Unmarshal([]byte(text), &r))
		require.Equal(t, reap.StoppedLocked, r.Stopped)
		require.Zero(t, r.Lists)
	}
	require.Zero(t, noted(t, folder, "lists"))
	_, err := reap.HostLock{Path: filepath.Join(folder, "lock")}.TryLock()
	var locked *reap.LockedError
	require.ErrorAs(t, err, &locked)
	require.Equal(t, holder.cmd.Process.Pid, locked.PID)
	require.Equal(t, token(8), locked.Token)
	ended(t, []*process{holder})
	r, err := reap.Pass(t.Context(), folderSource(folder), token(8), reap.Policy{Lock: filepath.Join(folder, "lock"), SkipIfLocked: true})
	require.NoError(t, err)
	require.Equal(t, 3, r.Deleted)
}

func TestAHostThatLacksAFileDescriptorForTheMomentIsNoMistakeOfConfiguration(t *testing.T) {
	t.Parallel()
	text, err := start(t, "pass without a file descriptor", t.TempDir()).end()
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintln(reap.StoppedLock, 75, true), text)
}

func TestTheLockIsReleasedWhenItsProcessDiesThoughAChildOfItLives(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	lock := reap.HostLock{Path: filepath.Join(folder, "lock")}
	p := start(t, "hold and start another", folder)
	_, err := lock.TryLock()
	require.ErrorIs(t, err, reap.ErrLocked)
	require.NoError(t, p.cmd.Process.Kill())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // a lock that the other one has would never be released
	defer cancel()
	held, err := lock.Lock(ctx)
	require.NoError(t, err)
	require.NoError(t, held.Unlock())
	require.NoError(t, p.stdin.Close()) // the other one ends
	require.Error(t, p.cmd.Wait())
}

func TestProcessesThatAskAtOnceMakeOneCallAndOneMoreIfTheFirstHadBegunBefore(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	held, err := reap.HostLock{Path: filepath.Join(folder, "call.lock")}.TryLock()
	require.NoError(t, err)
	all := several(t, processes, "flight", folder)
	require.NoError(t, held.Unlock())
	ended(t, all)
	require.Equal(t, 1, noted(t, folder, "calls"))

	first := start(t, "flight that is slow", folder) // in the middle of its call
	others := several(t, processes, "flight", folder)
	ended(t, []*process{first})
	ended(t, others)
	require.Equal(t, 3, noted(t, folder, "calls"))

	first = start(t, "flight that is slow", folder)
	aged := several(t, processes, "flight with an age", folder)
	ended(t, []*process{first})
	ended(t, aged)
	require.Equal(t, 4, noted(t, folder, "calls"), "with an age they take the result of the call that had begun")
}

func TestAFlightWhoseLeaderDiesIsTakenOver(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	leader := start(t, "flight that is slow", folder)
	others := several(t, 3, "flight", folder)
	require.NoError(t, leader.cmd.Process.Kill())
	ended(t, others)
	require.Error(t, leader.cmd.Wait())
	require.Equal(t, 2, noted(t, folder, "calls"))
}
