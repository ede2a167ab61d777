// Package registry keeps the packages of a small registry in a catalog, and has an
// index made equal to them by durable jobs.
//
// [Accept] changes a package and enqueues its sync in the same commit, so a change
// that was accepted reaches the index, and one that was refused never does. The sync
// has the package's name as its key and no payload: it reads what the package is
// when it runs. So it doesn't matter in which order syncs run, how often one is run,
// or that one run does the work of several: see [work.Latest].
//
//	publish, yank, unyank ──► catalog: package, change, jobs ──► sync ──► index
//	                                                        └──► announce ──► feed
//
// A sync that has ended well commits, together with its completion, up to which
// change the index has the package. From that, [Tell] derives what has become of each
// change; a status is stored nowhere.
package registry
