// Package leftovers removes what this library itself leaves beside a catalog, by package
// reap.
//
// The promise: nothing is removed that a living process may need. Notes of the current
// generation and of higher ones stay; so do the head, the log, the claims and the losses,
// of which this package knows nothing. A note is removed only at the version that was
// listed. A scratch place or a file is removed only once the process that made it must be
// dead, which is a day later. So any number of processes may run a pass at the same time,
// and a pass of a superseded process does no harm: it finds only what is older than that
// process.
//
// What is reaped, by kind:
//
//   - [Intent]: the wish that a generation shall lead, or its abort, once a higher one
//     leads;
//   - [Beat]: the sign of life of a holder that was superseded by one that gives none;
//   - [Request]: the question to a claim under way to give way, which no claim of today
//     can be asked any more;
//   - [Member]: what a process said of itself that died while no holder looked after that;
//   - driver.ScratchPlace: where a check of the store raced that was killed in the middle;
//   - driver.UnfinishedFile: a file that its process was about to name when it died.
//
// What is not reaped is somebody else's part. The holder trims its log: old records, parts
// of snapshots and staged batches that no head names. Leases and locks of claims under
// way end by themselves. Other notes are one each, replaced in place: the numbers
// that were given out, the newest check of the store and the newest refusals. docs/reap.md
// has the whole list.
package leftovers
