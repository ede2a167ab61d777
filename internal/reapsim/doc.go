// Package reapsim plays what package reap is for: many machines that clean up the same
// things, and many clients that share the limit of a server. Tests and benchmarks have
// their figures from it.
//
// A [Game] is played on a model clock. Its server is a bucket (GCRA) that gets one token
// each Window/Limit and holds Limit of them. Clients are processes of several threads; the
// threads of a process share one throttle, and each makes one call after the other. The
// same seed plays the same game, so the figures of two algorithms can be compared.
//
// A [Fleet] is played by the clock that time.After has.
package reapsim
