// Package grpcfence guards gRPC calls by the token of the process that makes them:
// a stale holder can't write through a guarded server.
//
// The client's interceptors put its token on each call, in the metadata
// fencepost-token. The server's interceptors ask a [fence.Gate] about it:
//
//	code                 reason              for                               error of the client
//	FAILED_PRECONDITION  STALE               a newer token was seen            *fence.Error, a hint
//	INVALID_ARGUMENT     MISSING, MALFORMED  no token, several, or not one     *fence.TokenError
//	PERMISSION_DENIED    NEVER_ISSUED,       the catalog never issued it, or   *fence.TokenError
//	                     UNSIGNED            it is not signed
//	UNAVAILABLE          UNVERIFIED,         the catalog can't be read, the    *fence.UndecidedError
//	                     NOT_SAVED,          register can't be saved, or
//	                     DRAINING            older work has not ended
//	RESOURCE_EXHAUSTED   TOO_MANY_RESOURCES  the gate has as many as it may    an error
//
// The status carries a google.rpc.ErrorInfo of domain "fencepost" with the reason
// and, for a stale token, who leads; and a RetryInfo if it is UNAVAILABLE.
//
// What the interceptors promise: once a call under a newer token has been passed
// on, no handler of a call under an older one is running, and none will. A call
// that is under way when a newer token comes has its context canceled, and its
// stream's SendMsg and RecvMsg fail at once, so a client that stands still holds up
// nobody. The newer call waits, bounded by the gate's DrainTimeout, until those
// handlers have returned; if they don't, it is UNAVAILABLE.
//
// What they need from the application: a handler that ends soon after its context,
// joins the goroutines that it starts, and uses no message of a SendMsg or RecvMsg
// that failed. The interceptors come last in the chain, so that none beneath them
// returns before its handler has. Work that a handler passes on to another store
// needs that store's guard.
//
// A server that can't read the catalog has a gate that trusts signatures, see
// [fence.Verifier], and its clients are given [Signed].
//
// What they do not decide: whether the client is who it says. A token is no secret.
package grpcfence
