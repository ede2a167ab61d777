package cli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/generation"
	"github.com/fencepost/fencepost/internal/cli"
	"github.com/fencepost/fencepost/internal/storeurl"
	"github.com/fencepost/fencepost/work"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"fencepost": func() {
			os.Exit(int(cli.Main(context.Background(), cli.Env{
				Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
			})))
		},
		"claim":  claim,
		"worker": worker,
		"arguments": func() {
			fmt.Println(os.Args[1:]) // what a child of run was given
		},
	})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("USER", "alice")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else the race detector makes every process a second slower
			env.Setenv("UNWRITABLE", unwritable(env.WorkDir))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "until": until},
	})
}

// unwritable returns a folder in which this user can create no file. Rights
// stop everyone but root; the kernel's own folders stop root too.
func unwritable(work string) string {
	if os.Geteuid() == 0 {
		return "/sys/kernel"
	}
	dir := filepath.Join(work, "unwritable")
	if os.Mkdir(dir, 0o555) != nil {
		return "/"
	}
	return dir
}

// exits runs a command and compares its exit status: exits CODE CMD ARG...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE CMD ARG...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

// until runs a command again until its standard output matches a pattern:
// until PATTERN CMD ARG...
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN CMD ARG...")
	}
	want := regexp.MustCompile(args[0])
	for end := time.Now().Add(time.Minute); ; {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("no output of %v has matched %q for a minute", args[1:], args[0])
		}
	}
}

// claim is a server of one generation that ends as soon as it holds the token:
// claim [-reason TEXT] [-updates N] GENERATION NAME.
func claim() {
	reason := flag.String("reason", "", "kept in the history")
	updates := flag.Int("updates", 0, "commits after the claim")
	flag.Parse()
	g, err := generation.Parse(flag.Arg(0))
	if err == nil {
		err = hold(context.Background(), "", g, flag.Arg(1), *reason, func(c *catalog.Catalog) error { return update(c, *updates) })
	}
	exitcodes.Exit(err)
}

// worker runs jobs until it is told to stop: worker GENERATION NAME [KIND...]. A job
// whose payload is "fail" fails, "refuse" fails for good, "hang" runs for ever.
func worker() {
	g, err := generation.Parse(os.Args[1])
	if err == nil {
		err = hold(context.Background(), "", g, os.Args[2], "", func(c *catalog.Catalog) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			defer stop()
			var kinds []work.Kind
			for _, name := range os.Args[3:] {
				kinds = append(kinds, work.Kind{Name: name, Run: runPayload, Stale: time.Minute})
			}
			q, err := work.New(c, work.Config{Kinds: kinds, Poll: 10 * time.Millisecond})
			if err == nil {
				err = q.Run(ctx)
			}
			if ctx.Err() != nil {
				return nil
			}
			return err
		})
	}
	exitcodes.Exit(err)
}

func runPayload(ctx context.Context, j *work.Job) error {
	switch string(j.Payload) {
	case "fail":
		return errors.New("push: 502")
	case "refuse":
		return work.Permanent(errors.New("no such crate"))
	case "hang":
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

// hold claims the catalog at url, calls fn with its holder and closes it.
func hold(ctx context.Context, url string, g generation.Generation, name, reason string, fn func(*catalog.Catalog) error) error {
	store, err := storeurl.Open(ctx, url, storeurl.Config{})
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	follower, err := catalog.Follow(ctx, store, catalog.Config{
		Generation: g, Holder: fence.Holder{Name: name, Address: "127.0.0.1:6390", Build: "b" + g.String()},
	})
	if err != nil {
		return err
	}
	defer func() { _ = follower.Close() }()
	c, err := follower.Open(ctx, catalog.ClaimOptions{Reason: reason})
	if err != nil {
		return err
	}
	if err := fn(c); err != nil {
		return err
	}
	return c.Close()
}

func update(c *catalog.Catalog, times int) error {
	for i := range times {
		err := c.Update(context.Background(), func(tx *catalog.Tx) error {
			return catalog.Bytes("rows").Set(tx, fmt.Sprint(i), []byte("v"))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A ran is what one run of the command has left.
type ran struct {
	code           exitcodes.Code
	stdout, stderr string
}

// run runs the command in this process.
func run(t *testing.T, env map[string]string, args ...string) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := cli.Main(t.Context(), cli.Env{
		Args: args, Stdin: &bytes.Buffer{}, Stdout: &stdout, Stderr: &stderr,
		Getenv: func(name string) string { return env[name] },
	})
	return ran{code: code, stdout: stdout.String(), stderr: stderr.String()}
}

// on is the environment of a command that works on a SQLite file.
func on(path string) map[string]string {
	return map[string]string{storeurl.EnvVar: "sqlite:" + path, "USER": "alice"}
}

// claimed returns the path of a catalog that generation 1 has claimed.
func claimed(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.db")
	require.NoError(t, hold(t.Context(), "sqlite:"+path, 1, "blue", "first", func(c *catalog.Catalog) error { return update(c, 3) }))
	return path
}
