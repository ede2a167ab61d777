// Package lead runs a command only while this process holds its catalog's token:
// a holder for programs in any language.
//
// The command runs as the one work of a [leader.Leader], in a process group of its
// own, and is told its token. What ends it depends on why it must end:
//
//	the token is lost, or its lease expires   SIGKILL at once
//	a handover                                the hold hook, the stop signal, a grace within the handover's time, SIGKILL
//	this process is to stop                   the stop signal, the stop grace, SIGKILL
//
// Only once nothing of it is left, strays that have left its group included, is the
// token handed over or given back. A successor that gives up has the command be
// started anew.
//
// A command outlives this process in no way that the system lets one prevent: the
// kernel kills it (Linux), and a second process, the keeper, kills its group, also
// where this process is stopped (SIGSTOP) until its lease has expired. What has left
// the group by then is stopped by guards only, as is whatever happens between a
// lease's end and a kill.
//
// The package decides nothing about tokens: package leader does.
package lead
