package exitcodes_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// roleEnv makes the test binary play a program that ends by this package.
const roleEnv = "EXITCODES_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		play(role)
	}
	// Beneath nohup, SIGHUP is ignored, and so are others in a shell's background.
	// A process inherits that, and not that a signal is caught.
	signal.Notify(make(chan os.Signal, 1), ignored()...)
	os.Exit(m.Run())
}

// ignored returns the signals to which this process was born deaf, and SIGCHLD,
// since Notify takes no signals for all.
func ignored() []os.Signal {
	all := []os.Signal{syscall.SIGCHLD}
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		if signal.Ignored(sig) {
			all = append(all, sig)
		}
	}
	return all
}

// play never returns.
func play(role string) {
	if name, ok := strings.CutPrefix(role, "exit "); ok {
		exitcodes.Exit(endings()[name])
	}
	opts := exitcodes.Options{Name: "db", Grace: 200 * time.Millisecond, OwnHangup: role == "own hangup"}
	if role == "wait" {
		opts.Grace = time.Hour
	}
	if role == "flush hangs" {
		opts.Flush = func(time.Duration) { select {} }
	}
	exitcodes.Main(func(ctx context.Context) error {
		exitcodes.Annotate(ctx, exitcodes.AdminField, "127.0.0.1:6878")
		return work(ctx, role)
	}, opts)
}

func work(ctx context.Context, role string) error {
	switch role {
	case "go panic":
		var none map[string]int
		none["x"] = 1
	case "stop":
		fmt.Println("ready")
		<-ctx.Done()
		return ctx.Err()
	case "stop fenced":
		fmt.Println("ready")
		<-ctx.Done()
		return endings()["fenced"]
	case "hang", "wait":
		fmt.Println("ready")
		select {}
	case "clean-up hangs":
		defer func() { select {} }()
		fmt.Println("ready")
		<-ctx.Done()
		return ctx.Err()
	case "log on": // what it logs nobody reads any more
		fmt.Println("ready")
		for ctx.Err() == nil {
			if _, err := fmt.Fprintln(os.Stderr, "a line"); err != nil {
				if !errors.Is(err, syscall.EPIPE) {
					return err
				}
				fmt.Println("nobody reads")
				<-ctx.Done()
			}
		}
		return ctx.Err()
	case "flags": // as a program that declares its flags by package flag itself
		return exitcodes.ParseFlags(flag.NewFlagSet("the-program", flag.ExitOnError), os.Args[1:])
	case "help on": // a process that it starts dies of SIGPIPE as ever
		return exec.Command("sh", "-c", "kill -PIPE $$").Run()
	case "own hangup":
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		fmt.Println("ready")
		select {
		case <-hangups:
			return endings()["config"]
		case <-ctx.Done():
			return ctx.Err()
		}
	case "ignores hangup":
		if signal.Ignored(syscall.SIGHUP) {
			return endings()["config"]
		}
	case "helped": // a process that it starts shares nothing of its ending
		helper := exec.Command(os.Args[0])
		helper.Env = append(os.Environ(), roleEnv+"=superseded")
		if err := helper.Run(); err != nil {
			return err
		}
		os.Exit(0)
	case "exit":
		exitcodes.Exit(endings()["fenced"])
	case "end":
		exitcodes.End(ctx, endings()["fenced"])
		select {}
	}
	return endings()[role]
}

func endings() map[string]error {
	held := fence.Token{Generation: 7, Epoch: 41}
	superseded := fence.Check(held, fence.Token{Generation: 8, Epoch: 42}, fence.Holder{Name: "green"})
	return map[string]error{
		"nothing":      nil,
		"superseded":   fmt.Errorf("serving: %w", superseded),
		"explained":    errors.Join(exitcodes.With(errors.New("lost"), exitcodes.Panic), superseded),
		"fenced":       fence.Check(held, fence.Token{Generation: 7, Epoch: 42}, fence.Holder{}),
		"retry spent":  exitcodes.With(errors.New("unreachable"), exitcodes.Retry),
		"config":       exitcodes.WithCode(errors.New("no rights"), exitcodes.Config),
		"usage":        exitcodes.WithCode(errors.New("no such flag"), exitcodes.Usage),
		"broken":       exitcodes.With(errors.New("lost commit"), exitcodes.Panic),
		"plain":        errors.New("plain"),
		"escapes":      errors.New("\x1b[2Jgone"),
		"unproven":     exitcodes.With(errors.New("tired"), exitcodes.GracefulExit),
		"not stopping": context.Canceled,
	}
}

// A played is what is left of a process that played a role.
type played struct {
	code   int
	stderr string
	record exitcodes.Record
}

// playing starts a role; the func waits for its end.
func playing(t *testing.T, role string) (*exec.Cmd, func() played) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ending")
	var stderr bytes.Buffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role, exitcodes.TerminationLogEnv+"="+path,
		"GORACE=atexit_sleep_ms=0") // else the race detector makes every process a second slower
	cmd.Stderr = &stderr
	return cmd, func() played {
		t.Helper()
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil {
			require.ErrorAs(t, err, &exit)
		}
		record, err := exitcodes.ReadRecord(path)
		if role != "helped" {
			require.NoError(t, err, stderr.String())
		}
		return played{cmd.ProcessState.ExitCode(), stderr.String(), record}
	}
}

func TestAProcessEndsWithTheStatusOfItsError(t *testing.T) {
	want := map[string]int{
		"nothing": 0, "superseded": 0, "explained": 0, "fenced": 166, "retry spent": 75,
		"config": 78, "usage": 64, "broken": 2, "plain": 1, "not stopping": 1,
		"unproven": 2, "go panic": 2, "end": 166, "exit": 166,
	}
	for name, code := range want {
		for _, prefix := range []string{"", "exit "} {
			if prefix != "" && (name == "go panic" || name == "end" || name == "exit") {
				continue // they are the work's own
			}
			t.Run(prefix+name, func(t *testing.T) {
				cmd, wait := playing(t, prefix+name)
				require.NoError(t, cmd.Start())
				p := wait()
				require.Equal(t, code, p.code, p.stderr)
				require.Equal(t, exitcodes.Code(code), p.record.Code)
				require.Equal(t, code == 0 && name != "nothing", p.record.Superseded)
				require.Contains(t, p.stderr, fmt.Sprintf("exit %d)\n", code))
				stuck := name == "end"
				require.Equal(t, code == 2 || stuck, strings.Contains(p.stderr, "goroutine "), "stacks for a panic and for work that hangs, and for nothing else")
				require.Equal(t, code == 2 || stuck, p.record.Stacks != "")
				if stuck {
					require.Contains(t, p.record.Stacks, "exitcodes.(*program).work", "the work's own goroutine is the first")
				}
				require.Equal(t, prefix == "" && name != "exit", p.record.Fields[exitcodes.AdminField] == "127.0.0.1:6878")
			})
		}
	}
}

func TestSIGTERMAndSIGINTEndAProcessWithZero(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := stopped(t, "stop", sig)
		require.Equal(t, 0, p.code, p.stderr)
		require.True(t, p.record.StopRequested)
		require.False(t, p.record.Superseded)
	}
}

func TestAFenceThatIsMetWhileStoppingStillDecides(t *testing.T) {
	p := stopped(t, "stop fenced", syscall.SIGTERM)
	require.Equal(t, 166, p.code, p.stderr)
}

func TestAProcessThatHangsIsCutOffAndSaysSo(t *testing.T) {
	p := stopped(t, "hang", syscall.SIGTERM)
	require.Equal(t, 0, p.code, p.stderr)
	require.Contains(t, p.stderr, "did not return within 150ms")
}

// stopped sends signals to a role once it is ready, and returns what is left.
func stopped(t *testing.T, role string, signals ...syscall.Signal) played {
	t.Helper()
	cmd, wait := playing(t, role)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	for _, sig := range signals {
		require.NoError(t, cmd.Process.Signal(sig))
	}
	return wait()
}

func TestAClosedStandardErrorDoesNotTurnAnEndingIntoADeath(t *testing.T) {
	cmd, wait := playing(t, "superseded")
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, reader.Close())
	cmd.Stderr = writer
	require.NoError(t, cmd.Start())
	require.NoError(t, writer.Close())
	p := wait()
	require.Equal(t, 0, p.code, "a process killed by SIGPIPE has -1")
	require.True(t, p.record.Superseded)
}

func TestAProcessThatTheWorkStartsLeavesNoRecordInItsPlace(t *testing.T) {
	cmd, wait := playing(t, "helped")
	require.NoError(t, cmd.Start())
	p := wait()
	require.Equal(t, 0, p.code, p.stderr)
	require.Zero(t, p.record)
}

func TestALogThatNobodyReadsAnyMoreKillsNobody(t *testing.T) {
	cmd, wait := playing(t, "log on")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stderr = writer
	require.NoError(t, cmd.Start())
	require.NoError(t, writer.Close())
	said := bufio.NewReader(out)
	line, err := said.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	require.NoError(t, reader.Close())
	line, err = said.ReadString('\n')
	require.NoError(t, err, "it died")
	require.Equal(t, "nobody reads\n", line)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	p := wait()
	require.Equal(t, 0, p.code)
	require.True(t, p.record.StopRequested)
}

func TestAProcessThatTheWorkStartsDiesOfSIGPIPEAsEver(t *testing.T) {
	cmd, wait := playing(t, "help on")
	require.NoError(t, cmd.Start())
	require.Contains(t, wait().record.Reason, "broken pipe")
}

func TestSIGHUPEndsTheWorkInGoodOrderAndTheServiceComesBack(t *testing.T) {
	p := stopped(t, "stop", syscall.SIGHUP)
	require.Equal(t, 129, p.code, p.stderr)
	require.Equal(t, exitcodes.Code(129), p.record.Code)
	require.Contains(t, p.record.Reason, "signal hangup")
	require.False(t, p.record.StopRequested, "nobody asked it to stay down")
	require.Equal(t, 166, stopped(t, "stop fenced", syscall.SIGHUP).code, "a fence still decides")
	require.Equal(t, 129, stopped(t, "hang", syscall.SIGHUP).code)
	require.Equal(t, 78, stopped(t, "own hangup", syscall.SIGHUP).code, "it was the work's own")
}

func TestSIGHUPAfterAStopIsNoSecondStop(t *testing.T) {
	p := stopped(t, "hang", syscall.SIGTERM, syscall.SIGHUP)
	require.Equal(t, 0, p.code, p.stderr)
	require.Contains(t, p.stderr, "did not return within 150ms")
}

func TestWhatIgnoresSIGHUPGoesOnIgnoringIt(t *testing.T) {
	cmd, wait := playing(t, "ignores hangup")
	sh, err := exec.LookPath("sh")
	require.NoError(t, err)
	cmd.Args = []string{"sh", "-c", `trap '' HUP; exec "$0"`, cmd.Path}
	cmd.Path = sh
	require.NoError(t, cmd.Start())
	p := wait()
	require.Equal(t, 78, p.code, p.stderr)
}
