package exitcodes

import "slices"

// A Meaning says of one exit status what it stands for, in words for who sees
// it. The table in the package documentation is its short form.
type Meaning struct {
	Code        Code
	Last        Code // of a range of codes; else the same as Code
	Name        string
	Disposition string // as Disposition.String has it, or "-"
	Means       string
	Producer    string // which programs end with it
	Supervisors []Advice
}

// An Advice is what one kind of supervisor does about an exit status, or is to
// be told to.
type Advice struct{ Supervisor, Do string }

// Meanings returns what each exit status of the contract stands for.
func Meanings() []Meaning { return slices.Clone(meanings) }

// MeaningOf returns what an exit status stands for; false where the contract
// does not have it, so that it is the application's own.
func MeaningOf(code Code) (Meaning, bool) {
	for _, m := range meanings {
		if m.Code <= code && code <= m.Last {
			return m, true
		}
	}
	return Meaning{}, false
}

var meanings = []Meaning{
	meaning(Success, "success", GracefulExit.String(),
		"superseded by a newer generation, or stopped as it was asked to, or done. The ending record says which.",
		"every program of exitcodes.Main; fencepost run, when it is told to stop; every command that did what was asked for",
		"parks where the ending record says superseded, and ends with 0 otherwise",
		"Restart=on-failure: stays down",
		"restartPolicy Always starts it again, however it ended: let fencepost run be the entrypoint, which parks",
		"restart: on-failure stays down; restart: always does not, unless fencepost run is the entrypoint",
		"an essential container that ends stops its task, and a service starts another: let fencepost run be the entrypoint, which parks"),
	meaning(Failure, "failure", None.String(),
		"an application's own error, of which nobody said what it asks of the process; of a command: what was asked for can't be.",
		"every program of exitcodes.Main, for an error without a disposition; every command of fencepost",
		"restarts with growing delays", "Restart=on-failure: restarts; set RestartSec and RestartSteps for growing delays",
		"restarts with growing delays", "restart: on-failure restarts with growing delays", "the service starts another task, with growing delays"),
	meaning(PanicExit, "panic", Panic.String(),
		"a broken invariant, corruption, a lost commit, an error that nobody knows, or a panic of Go's. Somebody must look.",
		"every program of exitcodes.Main; Go's runtime; a command that finds the catalog broken",
		"restarts with growing delays; raise an alarm on its line in the log", "Restart=on-failure: restarts; raise an alarm on the exit status in its journal: OnFailure= comes only once the unit is given up at its start limit",
		"restarts with growing delays; raise an alarm on the exit code in the container's last state", "restarts with growing delays; raise an alarm on the exit code",
		"the service starts another task; raise an alarm on the stopped task's exit code"),
	meaning(Usage, "usage", Halt.String(),
		"the command line is wrong. Starting the same one again changes nothing.",
		"fencepost; programs that mark an error with exitcodes.Usage",
		"ends with 64 as well", "RestartPreventExitStatus=64: stays down",
		"restarts with growing delays, for nothing: correct the manifest", "restarts with growing delays, for nothing: correct the command", "starts another task, for nothing: correct the task definition"),
	meaning(TempFail, "try again", Retry.String(),
		"the store could not be reached, or was too slow, for as long as the budget lasts. It passes by itself.",
		"every program of exitcodes.Main; a command whose time was over",
		"restarts with growing delays", "Restart=on-failure: restarts; set RestartSec", "restarts with growing delays", "restart: on-failure restarts with growing delays",
		"the service starts another task, with growing delays"),
	meaning(Config, "configuration", Halt.String(),
		"only new configuration, rights, credentials, certificates or a database that is missing help.",
		"every program of exitcodes.Main; every command of fencepost",
		"restarts every 30 s, so that a mended configuration is taken up", "Restart=on-failure with a long RestartSec, or RestartPreventExitStatus=78 where somebody always comes",
		"restarts with growing delays up to 5 minutes; raise an alarm", "restarts with growing delays; raise an alarm", "starts another task; raise an alarm"),
	meaning(126, "not executable", "-",
		"the command is there and can't be executed.",
		"fencepost run, as shells do",
		"ends with 126", "RestartPreventExitStatus=126: stays down", "correct the image or the command", "correct the image or the command", "correct the image or the task definition"),
	meaning(127, "not found", "-",
		"the command is not there.",
		"fencepost run, as shells do",
		"ends with 127", "RestartPreventExitStatus=127: stays down", "correct the image or the command", "correct the image or the command", "correct the image or the task definition"),
	meaning(Restart, "restart", Halt.String(),
		"fenced by a newer epoch of its own generation, or the store wants a process to start anew. Nothing is broken; it comes back as a standby.",
		"every program of exitcodes.Main",
		"restarts at once, and after some in a row with growing delays", "Restart=on-failure: restarts; RestartForceExitStatus=166 where Restart= says less",
		"restarts at once, then with growing delays: as it should be", "restart: on-failure restarts", "the service starts another task: as it should be"),
	bySignal(),
}

func meaning(code Code, name, disposition, means, producer, run, systemd, kubernetes, docker, ecs string) Meaning {
	return Meaning{
		Code: code, Last: code, Name: name, Disposition: disposition, Means: means, Producer: producer,
		Supervisors: []Advice{{"fencepost run", run}, {"systemd", systemd}, {"Kubernetes", kubernetes}, {"Docker", docker}, {"Amazon ECS", ecs}},
	}
}

// bySignal comes last, since 166 lies within its range.
func bySignal() Meaning {
	m := meaning(129, "signal", "-",
		"ended by a signal, whose number is the code minus 128; 137 is SIGKILL, such as for want of memory, and 143 SIGTERM. 129 is SIGHUP, also after a graceful ending.",
		"exitcodes.Main, after SIGHUP, and when a second signal comes while it stops; the kernel, by way of shells and containers",
		"restarts with growing delays, unless it was told to stop itself", "Restart=on-failure: restarts, but where SIGHUP, SIGINT, SIGTERM or SIGPIPE killed; RestartForceExitStatus=SIGHUP SIGPIPE restarts after those two as well",
		"restarts with growing delays", "restart: on-failure restarts", "the service starts another task")
	m.Last = 192
	return m
}
