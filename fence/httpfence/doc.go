// Package httpfence guards HTTP requests by the token of the process that sends
// them: a stale holder can't write through a guarded server.
//
// The client's [Transport] puts its token on each request, in the header
// Fencepost-Token. The server's [Middleware] asks a [fence.Gate] about it:
//
//	status  for                                                          Refusal
//	412     stale: a newer token was seen; the answer says who leads      *fence.Error, a hint
//	428     no token was given                                           *fence.TokenError
//	400     what was given is no token, or there were several headers     *fence.TokenError
//	403     the catalog never issued the token, or it is not signed      *fence.TokenError
//	503     not decided: the catalog can't be read, the register can't    *fence.UndecidedError
//	        be saved, or older work has not ended; with Retry-After
//	507     the gate has as many resources as it may                     an error
//
// 428 (RFC 6585) says that the request must be conditional, and 412 that its
// condition does not hold, which is what the token is. The body is a problem of
// RFC 9457, and never more than 8 KiB.
//
// What the middleware promises: once a request under a newer token has been passed
// on, no handler of a request under an older one is running, and none will. A
// request that is under way when a newer token comes has its context canceled,
// reads of its body fail at once, and writes of its answer fail after half of the
// gate's DrainTimeout, so a client that stands still holds up nobody. The newer
// request waits, bounded by DrainTimeout, until those handlers have returned; if
// they don't, the answer is 503.
//
// What it needs from the application: a handler that ends soon after its context,
// and that does not write behind its own end. So nothing beneath the middleware may
// return before its handler has, as http.TimeoutHandler does; a goroutine that a
// handler starts is joined by it. A connection can't be hijacked. Work that a
// handler passes on to another store needs that store's guard.
//
// A server that can't read the catalog has a gate that trusts signatures, see
// [fence.Verifier], and its clients have a [fence.Signer].
//
// What it does not decide: whether the client is who it says. A token is no secret:
// the answers name the newest one. Put authentication in front.
package httpfence
