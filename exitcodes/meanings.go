package exitcodes

import "strconv"

// The supervisors that the meanings speak of, in their order.
const (
	byRun         = "fencepost run"
	bySystemd     = "systemd"
	bySupervisord = "supervisord"
	byKubernetes  = "Kubernetes"
	byCompose     = "Compose"
	byECS         = "Amazon ECS"
)

// What they do, in the words of the table.
const (
	staysDown  = "stays down"
	staysFail  = "stays down, failed"
	backOff    = "restarts, growing delays"
	restarts1s = "restarts after 1 s"
	anotherOne = "starts another task"
)

var meanings = []Meaning{
	{
		Code: Success, Last: Success, Name: "success", Disposition: GracefulExit.String(),
		Means:    "superseded by a newer generation, or stopped as it was asked to, or done. The ending record says which.",
		Producer: "every program of exitcodes.Main; fencepost run, when it is told to stop; every command that did what was asked for",
		Supervisors: []Advice{
			{byRun, "parks if superseded, else ends with 0", "the ending record says which; with --on-superseded=exit it ends with 0 either way"},
			{bySystemd, staysDown, "Restart=on-failure"},
			{bySupervisord, staysDown, "exitcodes=0, and startsecs=0"},
			{byKubernetes, staysDown, "by the pod's rules; a Deployment starts it again, however it ended: let fencepost run be the entrypoint, which parks"},
			{byCompose, staysDown, "restart: on-failure; restart: always starts it again, unless fencepost run is the entrypoint"},
			{byECS, anotherOne, "an essential container that ends stops its task: let fencepost run be the entrypoint, which parks"},
		},
	},
	{
		Code: Failure, Last: Failure, Name: "failure", Disposition: None.String(),
		Means:       "an application's own error. Nobody said what it asks of the process; of a command: what was asked for can't be.",
		Producer:    "every program of exitcodes.Main, for an error without a disposition; every command of fencepost",
		Supervisors: restarted(Advice{byRun, backOff, ""}, "", ""),
	},
	{
		Code: PanicExit, Last: PanicExit, Name: "panic", Disposition: Panic.String(),
		Means: "a broken invariant, or a panic of Go's. Or corruption, a lost commit, an error that nobody knows. Somebody must look. " +
			"A loss of commits is recorded in the store: fencepost status shows it, and no process claims until fencepost restored.",
		Producer: "every program of exitcodes.Main; Go's runtime; a command that finds the catalog broken; Go's package flag for a wrong command line, " +
			"unless exitcodes.ParseFlags takes its place, which ends with 64",
		Supervisors: restarted(Advice{byRun, backOff, "raise an alarm on its line in the log"},
			"raise an alarm on the exit status in its journal: OnFailure= comes only once the unit is given up at its start limit",
			"raise an alarm on the exit code"),
	},
	{
		Code: Usage, Last: Usage, Name: "usage", Disposition: Halt.String(),
		Means:       "the command line is wrong. Starting the same one again changes nothing.",
		Producer:    "fencepost; programs that parse their flags by exitcodes.ParseFlags, or mark an error with exitcodes.Usage. Go's package flag by itself ends with 2",
		Supervisors: kept(Advice{byRun, "ends with 64", ""}, "64", "correct the command line", "for nothing: correct the command line"),
	},
	{
		Code: TempFail, Last: TempFail, Name: "try again", Disposition: Retry.String(),
		Means:       "the store could not be reached, or was too slow, for as long as the budget lasts. It passes by itself.",
		Producer:    "every program of exitcodes.Main; a command whose time was over",
		Supervisors: restarted(Advice{byRun, backOff, ""}, "", ""),
	},
	{
		Code: Config, Last: Config, Name: "configuration", Disposition: Halt.String(),
		Means: "only configuration or rights help. That is: a new configuration, rights, credentials, certificates, or a database that is missing. " +
			"Or the store has lost commits, and nobody has dealt with that: fencepost status shows the loss, and fencepost restored ends it.",
		Producer:    "every program of exitcodes.Main; every command of fencepost",
		Supervisors: kept(Advice{byRun, "restarts every 30 s", "so that a mended configuration is taken up"}, "78", "mend it and start it again", "raise an alarm"),
	},
	byRunAlone(126, "not executable", "the command can't be executed, though it is there."),
	byRunAlone(127, "not found", "the command is not there."),
	{
		Code: Restart, Last: Restart, Name: "restart", Disposition: Halt.String(),
		Means: "fenced by a newer epoch of its own generation, or it must start anew. " +
			"The store may want that too. Nothing is broken; it comes back as a standby.",
		Producer: "every program of exitcodes.Main",
		Supervisors: restarted(Advice{byRun, "restarts at once, then growing delays", "at once no more than five times within ten minutes"},
			"never name 166 in SuccessExitStatus=, which keeps it down", ""),
	},
	{ // the last one, since 166 lies within its range
		Code: 129, Last: 192, Name: "signal", Disposition: "-",
		Means: "ended by a signal, such as by a crash, or for want of memory. The signal's number is the code minus 128; " +
			"137 is SIGKILL, and 143 SIGTERM. 129 is SIGHUP, also after a graceful ending.",
		Producer: "exitcodes.Main, after SIGHUP, and when a second signal comes while it stops; the kernel, by way of shells and containers",
		Supervisors: restarted(Advice{byRun, "restarts at once, then growing delays", "unless it was told to stop itself"},
			"but where SIGHUP, SIGINT, SIGTERM or SIGPIPE killed; RestartForceExitStatus=SIGHUP SIGPIPE restarts after those two as well", ""),
	},
}

// restarted is the advice for what every supervisor starts again.
func restarted(run Advice, systemd, others string) []Advice {
	return []Advice{
		run,
		{bySystemd, restarts1s, systemd},
		{bySupervisord, "restarts at once", others},
		{byKubernetes, backOff, others},
		{byCompose, backOff, others},
		{byECS, anotherOne, others},
	}
}

// kept is the advice for what no restart mends, so that whoever can be told
// keeps it down, until there was a cure; the others are to be heeded elsewhere.
func kept(run Advice, code, cure, elsewhere string) []Advice {
	return []Advice{
		run,
		{bySystemd, staysFail, "RestartPreventExitStatus=" + code + "; " + cure},
		{bySupervisord, staysDown, "exitcodes=" + code + "; " + cure},
		{byKubernetes, staysFail, "by the pod's rules; a Deployment restarts it with growing delays, " + elsewhere},
		{byCompose, backOff, elsewhere},
		{byECS, anotherOne, elsewhere},
	}
}

// byRunAlone is a status of fencepost run's own, of which the files that start
// it speak.
func byRunAlone(code Code, name, means string) Meaning {
	const cure = "correct the image or the command"
	status := strconv.Itoa(int(code))
	advice := kept(Advice{byRun, "ends with " + status, ""}, status, cure, "for nothing: "+cure)
	advice[3].Does, advice[3].Note = backOff, "for nothing: "+cure // the pod's rules are for what has no entrypoint
	return Meaning{Code: code, Last: code, Name: name, Disposition: "-", Means: means, Producer: "fencepost run, as shells do", Supervisors: advice}
}
