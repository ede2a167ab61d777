// Package process starts commands, each as the leader of a process group of its
// own, and ends them together with what they have started.
//
// Ending a group is one rule, in group.go: a signal, a grace, SIGKILL, and a
// further grace for what even SIGKILL does not end, such as a process that waits
// for a dead disk: that is left behind. Once the command has ended, the rest of
// its group is asked to end too.
//
// A [Reaper] waits for every child of this process, orphans that it adopted
// included, so that nothing else in the process may start any. A command says how
// it stands by a socket ([Listen]) and why it ended by a record ([Records]).
//
// The package decides nothing about what follows an ending: entrypoint and lead
// do.
package process
