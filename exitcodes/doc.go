// Package exitcodes ends a process so that whoever supervises it does the
// right thing next: a superseded process exits 0 and stays down, one that must
// start anew says so by its exit status, and nothing else looks like either.
//
// An error says what it asks of the process by a method Disposition, and may
// narrow the exit status by a method ExitCode. It is asked once, at the end,
// by [Of] and [CodeOf]. Of several errors the worst decides, except that
// superseded explains everything else:
//
//	graceful exit > panic > halt > retry > none
//
// The codes are a public contract and are never renumbered.
//
//	code  disposition    for                                         fencepost run
//	0     graceful exit  superseded by a newer generation            leaves it down
//	0     -              a requested stop, or work that was done     leaves it down
//	1     none           an application's error without disposition  restarts, growing back-off
//	2     panic          broken invariant, corruption, Go's panic    restarts, growing back-off, alarm
//	64    halt           the command line is wrong                   leaves it down
//	75    retry          the budget for retrying is spent            restarts, back-off
//	78    halt           only configuration or rights help           restarts, longest delay
//	126   -              fencepost run: CMD can't be executed        leaves it down
//	127   -              fencepost run: CMD was not found            leaves it down
//	128+n -              ended at once by signal n while stopping    restarts at once, then back-off
//	129   -              ended in good order after SIGHUP            restarts at once, then back-off
//	166   halt           fenced by epoch; must start anew            restarts at once, then back-off
//
// Go's package flag ends a program with 2 for a wrong command line, which a
// supervisor would take for a broken invariant: parse flags by [ParseFlags], which
// asks for 64.
//
// SIGHUP, of which terminals mean "stop" and operators "start anew", is
// answered by a graceful ending with 129, so that a service comes back from it;
// SIGPIPE ends nothing. See [Main].
//
// No path ends with 0 unless an error proves that a newer generation leads, a
// stop was requested, or the work returned nil. The proof is a method
// Generations() (held, current uint64) of the error that claims graceful exit,
// or of one that it wraps, and is there where current is above held. A claim
// without it is a defect in the program: it ends with 2, and says so.
//
// A process ends within its grace though nobody reads its standard error, its
// ending record or what it tells its service manager. The exception is a panic in
// a goroutine of the program's own: Go's runtime itself writes the stacks then,
// and waits for a reader.
//
// [Main] runs a whole program this way, and [Exit] ends one at once. Both
// leave an ending record, a [Record], where FENCEPOST_TERMINATION_LOG says, or
// else in Kubernetes' /dev/termination-log, and tell a service manager that
// listens at NOTIFY_SOCKET, as systemd does. What each supervisor makes of a
// code stands in docs/supervisors.md.
//
// The package does not decide who is superseded: package fence does. It
// imports nothing else of this module, so that every other package can speak
// its words.
package exitcodes
