package exitcodes

import "strconv"

// A Disposition is what a process must do about an error that it can't handle
// where it arose. The zero Disposition, [None], means that the error concerns
// one call only and goes back to the caller.
type Disposition uint8

const (
	// None: the error belongs to one call, such as a limit or the caller's
	// own context. The process goes on.
	None Disposition = iota

	// Retry: the trouble passes by itself. Libraries retry inside, with a
	// budget; an error that still says retry has spent that budget.
	Retry

	// Halt: this process must end and start anew. Nothing is broken.
	Halt

	// Panic: an invariant is broken, data is corrupt, an acknowledged write
	// was lost, or nobody knows what the error means. A human must look.
	Panic

	// GracefulExit: a newer generation leads. This process is done for ever,
	// and that is no failure. Only an error with the proof has it: see [Of].
	GracefulExit

	numDispositions
)

var dispositionNames = [numDispositions]string{"none", "retry", "halt", "panic", "graceful exit"}

// String returns the word that documents, logs and ending records use.
func (d Disposition) String() string {
	if d >= numDispositions {
		return "Disposition(" + strconv.Itoa(int(d)) + ")"
	}
	return dispositionNames[d]
}

// A Code is a process's exit status. Supervisors act on codes: they are a
// public contract and are never renumbered.
type Code int

// The codes a process ends with. Other codes belong to the application.
const (
	// Success: superseded by a newer generation, or stopped on request.
	Success Code = 0
	// Failure: an application's own error, without a disposition.
	Failure Code = 1
	// PanicExit: broken invariant or corruption; as a Go panic ends.
	PanicExit Code = 2
	// Usage: the command line is wrong (EX_USAGE of sysexits).
	Usage Code = 64
	// TempFail: the budget for retrying is spent (EX_TEMPFAIL of sysexits).
	TempFail Code = 75
	// Config: only new credentials, rights or configuration help (EX_CONFIG
	// of sysexits).
	Config Code = 78
	// Restart: fenced by epoch, or the store wants this process to start
	// anew.
	Restart Code = 166
)

// Code returns the exit status of a process that ends with d.
func (d Disposition) Code() Code {
	switch d {
	case Retry:
		return TempFail
	case Halt:
		return Restart
	case Panic:
		return PanicExit
	case GracefulExit:
		return Success
	default:
		return Failure
	}
}
