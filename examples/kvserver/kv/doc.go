// Package kv is a database server that speaks the Redis protocol and keeps its
// data in a catalog.
//
// A write that was answered is in the catalog's log, once, under the token of
// the server that answered it; one that was answered with an error is not,
// except where the error begins with UNKNOWN. A server that lost its token can
// write nothing more, and says FENCED and by whom. The server never tries a
// write again whose outcome it doesn't know: only the client knows whether its
// write may be repeated.
//
//	Follow ── READONLY ──► Lead(catalog) ── reads and writes ──► Hold ── held back ──► Lead, Forward or Follow
//	Forward(address) ── to the server that leads ──► Follow
//
// What is held back or forwarded has changed nothing yet, or is answered UNKNOWN:
// forward.go says how.
//
// # Order and atomicity
//
// Commands that arrive together, as those of a pipeline do, share one Update of
// the catalog where there is a write among them. They run in order, each on top
// of those before it, and each has a reply of its own: one that fails changes
// nothing, and the others go on. No reply is sent before the commit has landed.
// Where the commit fails, all of them failed, and each is answered so. What
// stands between MULTI and EXEC is never divided; everything else may be, into
// Updates of at most MaxBatch commands.
//
// # How fresh a read is
//
// A read is served from the memory of the holder of the token, and sees every
// write that this server has answered before. A server that was fenced a moment
// ago, and hasn't heard of it, may serve reads that miss the writes of its
// successor, for about as long as catalog.Config.PollInterval. Where that
// matters, Config.ConfirmReads asks the store, after each read, whether the
// token was still held: one round trip, which concurrent reads share. The same
// holds for a write that turns out to change nothing, such as DEL of a key that
// isn't there.
//
// # What it is not
//
// Keys have no time to live: an option of SET that asks for one is an error.
// There is one database, one type (strings), the protocol's version 2, and
// neither a password nor TLS: it listens for its own host or behind a proxy.
// Who leads, and when, is decided by whoever calls [Server.Lead] and
// [Server.Follow].
package kv
