// Package demo is the program bluegreen: it replaces a database server by its
// next generation while clients write, and proves from the store that no
// acknowledged write was lost, none is there twice, and none of the old server
// came behind the new one's claim.
//
// Everything is real: the servers are processes of examples/kvserver under
// `fencepost run`, the promotion is `fencepost promote`, the faults are
// signals. There are two rounds, each on a catalog of its own:
//
//	takeover   blue leads ─► green is ready ─► promoted under load ─► blue ends
//	           with 0 and is parked ─► green is killed ─► comes back
//	stopped    blue leads ─► is stopped (SIGSTOP) ─► green is promoted ─► blue
//	           is continued ─► ends with 0
//
// Clients write through one stable address, a TCP proxy that forwards to
// whichever server says that it leads. One more client writes to blue's own
// address throughout. Every write has a key of its own and is sent once, so
// that the log of the store can be held against the ledger of the answers.
//
// The package does not decide whether a write is stale by asking the servers.
// It reads the log and the chain of claims, after every process has ended: see
// audit.go.
package demo
