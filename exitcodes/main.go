package exitcodes

import (
	"cmp"
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options are what [Main] may be told. The zero value means the defaults.
type Options struct {
	// Name stands before every line on standard error. The default is the
	// last element of the program's path.
	Name string

	// Grace is how long the process may take to end once the context of its work
	// has ended. The work has all of it but the last quarter, or the last second
	// if that is less, which is kept for the record and the last lines. The
	// default is 10 s.
	Grace time.Duration

	// Flush writes out what a logger of the program still holds back, within a
	// time. Main calls it before its own last line. The default is nothing.
	Flush func(within time.Duration)

	// OwnHangup leaves SIGHUP to the work, such as for reading its
	// configuration anew.
	OwnHangup bool
}

func (o Options) withDefaults() Options {
	o.Name = cmp.Or(o.Name, filepath.Base(os.Args[0]))
	o.Grace = cmp.Or(o.Grace, 10*time.Second)
	if o.Flush == nil {
		o.Flush = func(time.Duration) {}
	}
	return o
}

// Main is a whole program: it calls run and ends the process with the code of
// what run returns. It never returns.
//
// SIGTERM and SIGINT request a stop: the context of run ends with a cause that
// matches [ErrStopRequested], and run has most of opts.Grace to return. What it
// returns then is a success if it is nil, or says only that the work was
// cancelled; a fence or a broken invariant still decides. Work that does not
// return in time is cut off, with the code of the cause and the stacks of all
// goroutines; once the context has ended, its Deadline is that time. A second signal ends the
// process at once, with 128 plus the signal's number. Signals that come within
// [StopWindow] of the first belong to the same request.
//
// Nothing keeps the process longer than opts.Grace, or a quarter of a second more
// if that is less than a second: not a clean-up or a deferred call that hangs, and
// not a standard error, an ending record or a service manager that nobody reads.
// What can't be written by then is lost; the code is not. Work that returned
// without being asked to leaves a second for that. Once the work has returned, a
// second signal cuts only the writing short.
//
// SIGHUP ends the work in the same way, and the process with 129 where nothing
// else decides: it means "stop" to a terminal and "start anew" to an operator,
// and nobody asked by it that the service stay down. It is left alone where it
// was ignored when the process began, as under nohup, with opts.OwnHangup, and
// beside SIGTERM or SIGINT, since systemd may send it with SIGTERM.
// SIGPIPE is dropped, for as long as the process lives: a reader of its logs
// that is gone ends nothing. Writing to it fails with EPIPE.
//
// A Go panic in run is caught and ends as [Panic] does: with the stacks of all
// goroutines on standard error and code 2. A panic in a goroutine that run
// started can't be caught; the Go runtime ends the process, also with 2.
//
// One line on standard error says why the process ends and with which code,
// and the ending record says the same to programs: see [Record]. A service
// manager is told too, see [Notify]: that the process is stopping, for how long
// that may take, and how it ends. Main takes
// FENCEPOST_TERMINATION_LOG out of the environment first: the record is this
// process's, and none of the processes that it starts may write it.
func Main(run func(ctx context.Context) error, opts Options) {
	opts = opts.withDefaults()
	keepRecordPath()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	if !opts.OwnHangup && !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	// Received, not ignored: what is ignored, processes that this one starts
	// would ignore too. Nobody reads it, and what does not fit is dropped.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	p := newProgram(opts)
	os.Exit(int(p.finish(p.await(run, signals), os.Stderr, ownRecordPath(), signals)))
}

// Exit ends the process at once because of err, as the end of [Main] does: an
// ending record, a line on standard error, the stacks for a panic, and the
// code, within a second. Nothing is cleaned up; [End] gives the work its grace.
// Within the work of Main the record goes where Main's would.
func Exit(err error) {
	p := newProgram(Options{}.withDefaults())
	os.Exit(int(p.finish(endingOf(err, decide(voices(err))), os.Stderr, ownRecordPath(), nil)))
}

// keptEnv names the environment variable with the number of a process in which
// Main runs, and the place of its ending record: Exit, which is given nothing of
// Main's, must find it. Whoever inherits the variable has another number.
const keptEnv = "FENCEPOST_TERMINATION_LOG_OF"

// keepRecordPath takes the place of the ending record out of the environment,
// so that what a process that this one starts says of itself is not taken for
// this one's word.
func keepRecordPath() {
	// Neither can fail for names and values like these.
	_ = os.Setenv(keptEnv, strconv.Itoa(os.Getpid())+":"+ownRecordPath())
	_ = os.Unsetenv(TerminationLogEnv)
}

// ownRecordPath returns where this process leaves its ending record: where
// whoever started it says, or else where Main has kept it.
func ownRecordPath() string {
	pid, path, _ := strings.Cut(os.Getenv(keptEnv), ":")
	if os.Getenv(TerminationLogEnv) == "" && pid == strconv.Itoa(os.Getpid()) {
		return path
	}
	return RecordPath(os.Getenv)
}
