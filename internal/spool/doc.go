// Package spool keeps a process from waiting for whoever reads what it says: a
// log on a full pipe, a service manager that hangs, a callback that blocks. What
// is to be said goes into a queue, and one goroutine delivers it in order.
//
// A Queue is bounded, and never blocks its writer. When it is full it drops its
// oldest items, so that the newest word always gets through, and the next
// delivery says how many were dropped. [Queue.Flush] waits for the rest, within
// a time. No goroutine runs while a queue is empty.
package spool
