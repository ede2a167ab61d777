package exitcodes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// signalled delivers the signals one after the other, each once all goroutines
// of the program wait.
func signalled(signals ...os.Signal) chan os.Signal { return signalledEvery(0, signals...) }

// signalledEvery is signalled with a pause before each signal but the first.
func signalledEvery(pause time.Duration, signals ...os.Signal) chan os.Signal {
	c := make(chan os.Signal)
	go func() {
		for i, sig := range signals {
			if i > 0 {
				<-time.After(pause)
			}
			synctest.Wait()
			c <- sig
		}
	}()
	return c
}

// leads is an error with the proof that a newer generation does. Package fence
// has the real one, and imports this package.
type leads string

func (l leads) Error() string                       { return string(l) }
func (l leads) Disposition() Disposition            { return GracefulExit }
func (l leads) Generations() (held, current uint64) { return 7, 8 }

func until(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestWhatTheWorkReturnsAfterARequestedStopDecides(t *testing.T) {
	plain := errors.New("flushing failed")
	superseded := leads("generation 8 leads")
	fenced := With(errors.New("fenced by epoch"), Halt)
	broken := With(errors.New("lost commit"), Panic)
	cases := map[string]struct {
		returned error
		want     Code
	}{
		"nothing":                        {nil, Success},
		"the cause":                      {ErrStopRequested, Success},
		"the context's error":            {fmt.Errorf("serving: %w", context.Canceled), Success},
		"a retry that was cancelled":     {With(context.Canceled, Retry), Success},
		"both, joined":                   {errors.Join(context.Canceled, ErrStopRequested), Success},
		"superseded":                     {superseded, Success},
		"fenced":                         {fenced, Restart},
		"fenced, beside the context's":   {errors.Join(context.Canceled, fenced), Restart},
		"a broken invariant":             {errors.Join(broken, context.Canceled), PanicExit},
		"a panic over the context's own": {With(context.Canceled, Panic), PanicExit},
		"a budget spent":                 {With(errors.New("unreachable"), Retry), TempFail},
		"an application's error":         {errors.Join(plain, context.Canceled), Failure},
	}
	for name, c := range cases {
		synctest.Test(t, func(t *testing.T) {
			p := newProgram(Options{Name: "test", Grace: time.Second})
			e := p.await(func(ctx context.Context) error {
				require.ErrorIs(t, until(ctx), ErrStopRequested)
				return c.returned
			}, signalled(syscall.SIGTERM))
			require.Equal(t, c.want, e.record.Code, name)
			require.True(t, e.record.StopRequested, name)
			require.Equal(t, name == "superseded", e.record.Superseded, name)
		})
	}
}

func TestACancelledContextWithoutARequestedStopIsAFailure(t *testing.T) {
	p := newProgram(Options{Grace: time.Second})
	e := p.await(func(context.Context) error { return context.Canceled }, nil)
	require.Equal(t, Failure, e.record.Code)
}

func TestWorkThatDoesNotReturnIsCutOffAfterItsGraceWithTheCodeOfTheCause(t *testing.T) {
	causes := map[Code]error{
		Success:   nil,
		Restart:   With(errors.New("fenced by epoch"), Halt),
		PanicExit: With(errors.New("lost commit"), Panic),
		Failure:   errors.New("plain"),
	}
	for want, cause := range causes {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			defer close(release)
			var stop []os.Signal
			if cause == nil {
				stop = append(stop, syscall.SIGTERM)
			}
			start := time.Now()
			e := newProgram(Options{Grace: 7 * time.Second}).await(func(ctx context.Context) error {
				End(ctx, cause)
				<-release
				return nil
			}, signalled(stop...))
			require.Equal(t, want, e.record.Code)
			require.Equal(t, 6*time.Second, time.Since(start), "the last second is for the last words")
			require.Equal(t, "the work did not return within 6s and was cut off", e.remark)
		})
	}
}

func TestASecondSignalEndsAtOnceWith128AndItsNumber(t *testing.T) {
	for sig, want := range map[os.Signal]Code{syscall.SIGTERM: 143, os.Interrupt: 130} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			defer close(release)
			start := time.Now()
			e := newProgram(Options{Grace: time.Hour}).await(func(context.Context) error {
				<-release
				return nil
			}, signalledEvery(StopWindow, syscall.SIGTERM, sig))
			require.Equal(t, want, e.record.Code)
			require.Equal(t, StopWindow, time.Since(start))
		})
	}
}

func TestAStopDuringAnEndingLeavesTheWorkItsGraceAndTheCauseDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		superseded := leads("generation 8 leads")
		e := newProgram(Options{Grace: time.Hour}).await(func(ctx context.Context) error {
			require.True(t, End(ctx, superseded))
			require.True(t, End(ctx, errors.New("too late to matter")))
			<-time.After(time.Minute)
			return ctx.Err()
		}, signalled(syscall.SIGTERM))
		require.True(t, e.record.Superseded)
		require.Equal(t, Success, e.record.Code)
		require.Len(t, e.record.Errors, 2)
	})
}

func TestACauseThatTheWorkReturnsIsListedOnce(t *testing.T) {
	e := newProgram(Options{Grace: time.Second}).await(func(ctx context.Context) error {
		End(ctx, With(errors.New("fenced by epoch"), Halt))
		return fmt.Errorf("serving: %w", until(ctx))
	}, nil)
	require.Equal(t, Restart, e.record.Code)
	require.Len(t, e.record.Errors, 1)
}

func TestACauseThatIsItselfACancellationIsNoSuccess(t *testing.T) {
	e := newProgram(Options{Grace: time.Second}).await(func(ctx context.Context) error {
		End(ctx, fmt.Errorf("somebody else's: %w", context.Canceled))
		return until(ctx)
	}, nil)
	require.Equal(t, Failure, e.record.Code)
}

func TestAGoroutineThatEndsItselfIsNoSuccess(t *testing.T) {
	e := newProgram(Options{Grace: time.Second}).await(func(context.Context) error {
		runtime.Goexit()
		return nil
	}, nil)
	require.Equal(t, Failure, e.record.Code)
	require.Contains(t, e.record.Reason, "runtime.Goexit")
}

func TestAGoPanicKeepsTheStacksOfWhereItHappened(t *testing.T) {
	e := newProgram(Options{Grace: time.Second}).await(func(context.Context) error {
		panicHere()
		return nil
	}, nil)
	require.Equal(t, PanicExit, e.record.Code)
	require.Equal(t, "go panic: an index of 7", e.record.Reason)
	require.Contains(t, string(e.stacks), "panicHere")
}

func panicHere() { panic("an index of 7") }

func TestAnEndingLeavesItsRecordEvenWhereNobodyReadsItsLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ending")
	e := endingOf(errors.New("plain"), decide(voices(errors.New("plain"))))
	require.Equal(t, Failure, finished("test", e, brokenWriter{}, path))
	r, err := ReadRecord(path)
	require.NoError(t, err)
	require.Equal(t, "plain", r.Reason)
	require.Equal(t, "test", r.Name)
}

// finished is how a program ends that nobody signals.
func finished(name string, e ending, stderr io.Writer, path string) Code {
	return newProgram(Options{Name: name}.withDefaults()).finish(e, stderr, path, nil)
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestAnEndingSaysInOneLineWhyAndWithWhichCode(t *testing.T) {
	lines := map[string]error{
		"db: done (exit 0)\n":                                   nil,
		"db: plain; other (exit 1)\n":                           errors.Join(errors.New("plain"), errors.New("other")),
		"db: fenced by epoch (halt, exit 166)\n":                With(errors.New("fenced by epoch"), Halt),
		"db: no rights (halt, exit 78)\n":                       WithCode(errors.New("no rights"), Config),
		"db: generation 8 leads (graceful exit, exit 0)\n":      leads("generation 8 leads"),
		"db: unreachable for 5 minutes\t(?) (retry, exit 75)\n": With(errors.New("unreachable for 5 minutes\t(?)"), Retry),
	}
	for want, err := range lines {
		var stderr bytes.Buffer
		finished("db", endingOf(err, decide(voices(err))), &stderr, "")
		require.Equal(t, want, stderr.String())
	}
}

func TestARecordThatCannotBeWrittenIsSaidAndChangesNoCode(t *testing.T) {
	var stderr bytes.Buffer
	err := With(errors.New("fenced by epoch"), Halt)
	code := finished("db", endingOf(err, decide(voices(err))), &stderr, filepath.Join(t.TempDir(), "missing", "ending"))
	require.Equal(t, Restart, code)
	require.Contains(t, stderr.String(), "db: writing the ending record: ")
	require.Contains(t, stderr.String(), "db: fenced by epoch (halt, exit 166)\n")
}

func TestAContextOfNoMainTakesNoAnnotationsAndEndsNothing(t *testing.T) {
	Annotate(t.Context(), AdminField, "127.0.0.1:6878")
	require.False(t, End(t.Context(), errors.New("plain")))
	require.NoError(t, t.Context().Err())
}

func TestTheContextOfTheWorkSaysOnceItHasEndedWhenItWillBeCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		e := newProgram(Options{Grace: 8 * time.Second}).await(func(ctx context.Context) error {
			_, has := ctx.Deadline()
			require.False(t, has)
			<-ctx.Done()
			<-time.After(time.Second)
			by, has := ctx.Deadline()
			require.True(t, has)
			require.Equal(t, 7*time.Second, by.Sub(began))
			<-t.Context().Done() // it hangs
			return nil
		}, signalled(syscall.SIGTERM))
		require.Equal(t, 7*time.Second, time.Since(began))
		require.Contains(t, e.remark, "cut off")
		require.Contains(t, string(e.stacks), "exitcodes.(*program).work")
	})
}
