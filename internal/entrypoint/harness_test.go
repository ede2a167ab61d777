//go:build unix

package entrypoint

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/identity"
	"github.com/fencepost/fencepost/internal/process"
)

// The test binary plays every process of these tests: run itself, its child,
// and whom the child starts. The first argument says which.
func TestMain(m *testing.M) {
	if len(os.Args) < 3 {
		os.Exit(m.Run())
	}
	switch os.Args[1] {
	case "run":
		var cfg Config
		must(json.Unmarshal([]byte(os.Args[2]), &cfg))
		os.Exit(int(Main(cfg)))
	case "child":
		p := player{name: "child", events: os.Args[2]}
		p.play(p.next(os.Args[3:]))
	case "member", "middle", "orphan", "keeper":
		p := player{name: os.Args[1], events: os.Args[2]}
		p.play(os.Args[3])
	default:
		os.Exit(m.Run())
	}
	os.Exit(0)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A player is a process that reports what happens to it in a file.
type player struct{ name, events string }

func (p player) report(event string) {
	f, err := os.OpenFile(p.events, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	must(err)
	_, err = fmt.Fprintf(f, "%s %s %d\n", p.name, event, os.Getpid())
	must(err)
	must(f.Close())
}

// next returns the step of this start: a child's n-th start plays its n-th
// step, or the last.
func (p player) next(steps []string) string {
	p.report("started")
	data, err := os.ReadFile(p.events)
	must(err)
	starts := strings.Count(string(data), "child started ")
	return steps[min(starts, len(steps))-1]
}

func (p player) play(step string) {
	verb, arg, _ := strings.Cut(step, "=")
	number, _ := strconv.Atoi(arg)
	switch verb {
	case "exit":
		os.Exit(number)
	case "kill": // a shell, because Go's runtime turns SIGSEGV into exit 2
		must(syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -" + arg + " $$"}, os.Environ()))
	case "told": // says who it is, and of whose end it was told
		me, err := identity.Self()
		must(err)
		p.report("me=" + me.String())
		p.report("ended=" + os.Getenv(identity.EndedEnv))
		os.Exit(number)
	case "wait":
		p.report("ready")
		forever()
	case "deaf":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		p.report("ready")
		forever()
	case "listen":
		p.listen(number)
	case "count": // signals, of which SIGUSR1 is the last one
		p.listenUntil(syscall.SIGUSR1, number)
	case "pair": // a second process in the group
		p.spawn("member", arg)
		p.listen(0)
	case "leave": // dies with somebody left in its group
		p.spawn("member", arg)
		waitFor(p.events, "member ready")
		os.Exit(1)
	case "zombie": // dies with somebody in its group whom nobody reaps
		p.keep()
	case "keep":
		group, err := strconv.Atoi(arg)
		must(err)
		must(member(p.events, "exit=0", group).Start()) // and never waits
		p.report("ready")
		waitFor(p.events, "test release")
	case "tell": // speaks to the service manager, as somebody else did before, and ends
		must(member(p.events, "lie", 0).Run())
		p.tell("READY=1", "STATUS=the child leads", "MAINPID=1", "READY=0")
		p.tell("STOPPING=1", "STATUS=the child ends")
		waitFor(p.events, "test release")
		os.Exit(number)
	case "ready": // speaks, and ends once the test has released that many starts
		p.tell("READY=1")
		p.speak(number)
	case "unready":
		p.speak(number)
	case "lie":
		p.tell("READY=1", "STATUS=a helper speaks")
	case "bury": // has a grandchild that outlives its parent and then ends
		p.spawn("middle", "")
		p.listen(0)
	case "":
		p.orphan()
	default:
		p.end(verb, arg)
	}
}

// end plays a program that ends by package exitcodes.
func (p player) end(verb, admin string) {
	held := fence.Token{Generation: 7, Epoch: 41}
	exitcodes.Main(func(ctx context.Context) error {
		exitcodes.Annotate(ctx, exitcodes.AdminField, admin)
		switch verb {
		case "superseded":
			return fence.Check(held, fence.Token{Generation: 8, Epoch: 42}, fence.Holder{Name: "green"})
		case "fenced":
			return fence.Check(held, fence.Token{Generation: 7, Epoch: 42}, fence.Holder{Name: "twin"})
		case "stop":
			p.report("ready")
			<-ctx.Done()
			return ctx.Err()
		case "hang":
			p.report("ready")
			<-ctx.Done()
			p.report("stopping")
			forever()
		case "drain":
			p.report("ready")
			<-ctx.Done()
			p.report("stopping")
			waitFor(p.events, "test release")
			p.report("drained")
			return nil
		case "helped": // ends without a record, after a helper that was superseded
			must(member(p.events, "superseded=", 0).Run())
			os.Exit(0)
		}
		panic("no such step: " + verb)
	}, exitcodes.Options{Name: "db", Grace: time.Minute})
}

// listen reports every signal, and ends with code at SIGTERM.
func (p player) listen(code int) { p.listenUntil(syscall.SIGTERM, code) }

func (p player) listenUntil(last syscall.Signal, code int) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, process.Forwarded()...)
	p.report("ready")
	for sig := range signals {
		p.report("signal-" + strconv.Itoa(int(sig.(syscall.Signal))))
		if sig == last {
			os.Exit(code)
		}
	}
}

func (p player) tell(assignments ...string) { must(exitcodes.Notify(assignments...)) }

// speak says which start this is, and ends with code at as many releases.
func (p player) speak(code int) {
	data, err := os.ReadFile(p.events)
	must(err)
	start := strings.Count(string(data), "child started ")
	p.tell("STATUS=start " + strconv.Itoa(start))
	waitForAll(p.events, "test release", start)
	os.Exit(code)
}

// spawn starts another player, which holds the read end of a pipe whose write
// end dies with this process.
func (p player) spawn(name, step string) {
	r, w, err := os.Pipe()
	must(err)
	cmd := exec.Command(os.Args[0], name, p.events, step)
	cmd.Stdin = r
	must(cmd.Start())
	forget = append(forget, w)
}

// member is a player that is a child of this process, in the process group of
// that number, or for 0 in its own.
func member(events, step string, group int) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "member", events, step)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: group != 0, Pgid: group}
	return cmd
}

// keep starts a process outside of the group that keeps one inside of it from
// being reaped, and ends.
func (p player) keep() {
	cmd := exec.Command(os.Args[0], "keeper", p.events, "keep="+strconv.Itoa(os.Getpid()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(cmd.Start())
	waitFor(p.events, "keeper ready")
	os.Exit(1)
}

// forget keeps pipes from the garbage collector.
var forget []*os.File

// orphan is the double fork: the one in the middle starts the other and ends;
// the other sees that, reports who its parent is now, and ends.
func (p player) orphan() {
	if p.name == "middle" {
		p.spawn("orphan", "")
		return
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the one in the middle is dead
	p.report("adopted-by-" + strconv.Itoa(os.Getppid()))
}

// release lets go whoever waits for the test. Its line names no process: clean
// kills those that are named.
func (r *running) release() {
	f, err := os.OpenFile(r.events, os.O_WRONLY|os.O_APPEND, 0)
	must(err)
	_, err = fmt.Fprintln(f, "test release")
	must(err)
	must(f.Close())
}

func waitFor(path, event string) { waitForAll(path, event, 1) }

// waitForAll ends the process where the test has gone, with its file, before
// event came n times.
func waitForAll(path, event string, n int) {
	const most = 200 // of looks in a row that find no file
	for missing := 0; missing < most; <-time.After(5 * time.Millisecond) {
		data, err := os.ReadFile(path)
		switch {
		case err != nil:
			missing++
		case strings.Count(string(data), event) >= n:
			return
		default:
			missing = 0
		}
	}
	os.Exit(1)
}

func forever() { <-time.After(time.Hour) }

// A running is a process that runs this package's Main.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	events string
	stderr string
	record string // where its own ending record goes
	ended  chan struct{}
	inside bool // a PID namespace of its own, whose numbers mean others out here
}

// begin runs steps under cfg, in which short delays are filled in.
func begin(t *testing.T, cfg Config, steps ...string) *running {
	t.Helper()
	return beginUnder(t, nil, cfg, steps...)
}

// beginUnder is begin where run is started by another command.
func beginUnder(t *testing.T, under []string, cfg Config, steps ...string) *running {
	t.Helper()
	return beginWith(t, func(*exec.Cmd) {}, under, cfg, steps...)
}

// beginWith is beginUnder where run's own surroundings are changed.
func beginWith(t *testing.T, change func(run *exec.Cmd), under []string, cfg Config, steps ...string) *running {
	t.Helper()
	dir := t.TempDir()
	r := &running{
		t:      t,
		events: filepath.Join(dir, "events"),
		stderr: filepath.Join(dir, "stderr"),
		record: filepath.Join(dir, "ending"),
		ended:  make(chan struct{}),
		inside: under != nil,
	}
	if cfg.Command == nil {
		cfg.Command = append([]string{os.Args[0], "child", r.events}, steps...)
	}
	if cfg.FirstDelay == 0 {
		cfg.FirstDelay, cfg.MaxDelay = 10*time.Millisecond, 40*time.Millisecond
	}
	encoded, err := json.Marshal(cfg)
	require.NoError(t, err)
	stderr, err := os.Create(r.stderr)
	require.NoError(t, err)
	line := append(slices.Clone(under), os.Args[0], "run", string(encoded))
	r.cmd = exec.Command(line[0], line[1:]...)
	r.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "TMPDIR="+dir, exitcodes.TerminationLogEnv+"="+r.record)
	r.cmd.Stderr = stderr
	change(r.cmd)
	require.NoError(t, r.cmd.Start())
	require.NoError(t, stderr.Close())
	go func() {
		defer close(r.ended)
		_ = r.cmd.Wait() // the status is read where it matters
	}()
	t.Cleanup(r.clean)
	return r
}

// clean leaves no process behind, however the test went.
func (r *running) clean() {
	_ = r.cmd.Process.Kill()
	<-r.ended
	for line := range strings.Lines(r.read(r.events)) {
		fields := strings.Fields(line)
		if pid, err := strconv.Atoi(fields[len(fields)-1]); err == nil && r.t.Failed() && !r.inside {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if r.t.Failed() {
		r.t.Logf("standard error:\n%s\nevents:\n%s", r.read(r.stderr), r.read(r.events))
	}
}

func (r *running) read(path string) string {
	data, _ := os.ReadFile(path) // absent is empty
	return string(data)
}

func (r *running) signal(sig syscall.Signal) {
	r.t.Helper()
	require.NoError(r.t, r.cmd.Process.Signal(sig))
}

// happens waits for n events with that beginning.
func (r *running) happens(event string, n int) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return r.count(event) >= n }, time.Minute, 5*time.Millisecond, "%d of %q", n, event)
}

func (r *running) count(event string) int { return strings.Count(r.read(r.events), event+" ") }

// says waits for a text on standard error.
func (r *running) says(text string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return strings.Contains(r.read(r.stderr), text) }, time.Minute, 5*time.Millisecond, text)
}

// ends waits for the end and requires its status.
func (r *running) ends(code int) {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(time.Minute):
		require.Fail(r.t, "run does not end")
	}
	require.Equal(r.t, code, r.cmd.ProcessState.ExitCode())
}

func get(t *testing.T, url string) (*http.Response, error) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	return client.Get(url)
}
