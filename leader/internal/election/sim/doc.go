// Package sim plays processes that elect a leader, in virtual time: one thread, no
// clock, and every schedule the same for the same seed.
//
// A process is an [election.Candidate] and then an [election.Term], with a shell
// that observes and acts for it as package leader does. The store is the real
// memory driver: its calls return at once and start no goroutine. What comes
// between a process and the store is the simulator's: latency, outages, calls that
// hang, requests and answers that are lost, writes that land late.
//
// Each process has a boot clock of its own, which runs up to a hundredth too fast
// or too slow, and runs on while the process is stopped. Processes are killed,
// stopped, continued, started again and replaced by higher generations; hosts are
// cut off from the store, from one another, or vanish; operators promote, abort,
// fence and step down.
//
// After every event the invariants of docs/leading.md are checked. The first that
// does not hold ends the run: [Run] returns it, with the seed and the schedule.
//
// # What is not simulated
//
// Package catalog (a claim and a commit are one call each here), the wire, and
// what package leader itself does wrong: the shell is a second one.
package sim
