package etcd

import (
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// byEtcd lists the errors that etcd's server names, with what each means for a
// catalog. Refused are those that a server gives before it proposes a write,
// or instead of applying it.
func byEtcd() []entry {
	const none, retry, panics = exitcodes.None, exitcodes.Retry, exitcodes.Panic
	access := func(why string) rule {
		return rule{disposition: exitcodes.Halt, refused: true, code: exitcodes.Config, remedy: "check user, password and role of the catalog's prefix", why: why}
	}
	wrong := func(remedy, why string) rule {
		return rule{disposition: exitcodes.Halt, refused: true, code: exitcodes.Config, remedy: remedy, why: why}
	}
	refused := func(why string) rule { return rule{disposition: retry, refused: true, why: why} }
	unsure := func(why string) rule { return rule{disposition: retry, why: why} }
	bug := func(why string) rule { return rule{disposition: panics, refused: true, why: why} }
	const admin = "an answer to an administrator's call that the driver never makes"
	const ours = "the server took our request for malformed"
	return []entry{
		{rpctypes.ErrNoSpace, rule{disposition: retry, means: driver.ErrFull,
			remedy: "compact and defragment etcd, raise its quota if need be, then disarm the alarm NOSPACE",
			why:    "no refusal: the write that crosses the quota is applied and answered so (quotaApplierV3.Txn in etcd's apply/quota.go)"}},
		{rpctypes.ErrRequestTooLarge, rule{disposition: none, refused: true, means: driver.ErrTooLarge,
			remedy: "etcd's --max-request-bytes is below its default of 1.5 MiB", why: "refused before the proposal"}},
		{rpctypes.ErrCorrupt, rule{disposition: panics, means: driver.ErrCorrupt, remedy: "restore the etcd cluster", why: "members disagree about their data; who has applied what is open"}},

		{rpctypes.ErrTooManyRequests, refused("the server is behind and proposes nothing")},
		{rpctypes.ErrNoLeader, refused("no quorum to propose to")},
		{rpctypes.ErrNotLeader, refused("only a leader answers this")},
		{rpctypes.ErrUnhealthy, refused("checked before the proposal")},
		{rpctypes.ErrNotCapable, refused("the cluster is being upgraded")},
		{rpctypes.ErrClusterVersionUnavailable, refused("the cluster is starting")},
		{rpctypes.ErrInvalidAuthToken, refused("tokens expire; the client has fetched a new one")},
		{rpctypes.ErrAuthOldRevision, refused("rights have changed since the token; the client has fetched a new one")},
		{rpctypes.ErrLeaseNotFound, refused("the claim's lease ended, and its write with it")},
		{rpctypes.ErrLeaseExist, refused("another lease has the number; the next grant draws a new one")},

		{rpctypes.ErrTimeout, unsure("proposed, and not answered in time")},
		{rpctypes.ErrTimeoutDueToLeaderFail, unsure("proposed to a leader that was lost")},
		{rpctypes.ErrTimeoutDueToConnectionLost, unsure("proposed while the quorum was lost")},
		{rpctypes.ErrTimeoutWaitAppliedIndex, unsure("the member is behind")},
		{rpctypes.ErrLeaderChanged, unsure("the old leader may have proposed it")},
		{rpctypes.ErrStopped, unsure("the server stopped with the proposal under way")},
		{rpctypes.ErrCompacted, unsure("the store's history up to there is gone; read anew")},

		{rpctypes.ErrUserEmpty, access("auth is on, and the request had no user")},
		{rpctypes.ErrAuthFailed, access("wrong user or password")},
		{rpctypes.ErrPermissionDenied, access("the role does not reach the prefix")},
		{rpctypes.ErrUserNotFound, access("the user was removed")},
		{rpctypes.ErrRoleNotFound, access("the role was removed")},
		{rpctypes.ErrRoleEmpty, access(admin)},
		{rpctypes.ErrRoleNotGranted, access(admin)},
		{rpctypes.ErrPermissionNotGranted, access(admin)},
		{rpctypes.ErrUserAlreadyExist, access(admin)},
		{rpctypes.ErrRoleAlreadyExist, access(admin)},
		{rpctypes.ErrRootUserNotExist, access(admin)},
		{rpctypes.ErrRootRoleNotExist, access(admin)},
		{rpctypes.ErrAuthNotEnabled, access("a token of a cluster that knows no users")},
		{rpctypes.ErrInvalidAuthMgmt, access(admin)},

		{rpctypes.ErrClusterIDMismatch, wrong("the endpoints belong to different clusters: correct the URL", "another cluster has another history of tokens")},
		{rpctypes.ErrLeaseTTLTooLarge, wrong("lower ClaimTTL", "refused by the server")},
		{rpctypes.ErrMemberExist, wrong("", admin)},
		{rpctypes.ErrPeerURLExist, wrong("", admin)},
		{rpctypes.ErrMemberNotEnoughStarted, wrong("", admin)},
		{rpctypes.ErrMemberBadURLs, wrong("", admin)},
		{rpctypes.ErrMemberNotFound, wrong("", admin)},
		{rpctypes.ErrMemberNotLearner, wrong("", admin)},
		{rpctypes.ErrMemberLearnerNotReady, wrong("", admin)},
		{rpctypes.ErrTooManyLearners, wrong("", admin)},
		{rpctypes.ErrBadLeaderTransferee, wrong("", admin)},
		{rpctypes.ErrWrongDowngradeVersionFormat, wrong("", admin)},
		{rpctypes.ErrInvalidDowngradeTargetVersion, wrong("", admin)},
		{rpctypes.ErrDowngradeInProcess, wrong("", admin)},
		{rpctypes.ErrNoInflightDowngrade, wrong("", admin)},

		{rpctypes.ErrFutureRev, bug("the store's revision fell: it was restored from an older backup")},
		{rpctypes.ErrEmptyKey, bug(ours)},
		{rpctypes.ErrKeyNotFound, bug(ours)},
		{rpctypes.ErrValueProvided, bug(ours)},
		{rpctypes.ErrLeaseProvided, bug(ours)},
		{rpctypes.ErrTooManyOps, bug(ours)},
		{rpctypes.ErrDuplicateKey, bug(ours)},
		{rpctypes.ErrInvalidSortOption, bug(ours)},
	}
}

// byCode returns the rule for a gRPC code, where etcd gave no name of its own.
// No code alone proves that a write was refused.
func byCode(code codes.Code) rule {
	if int(code) < len(grpcCodes()) {
		return grpcCodes()[code]
	}
	return rule{disposition: exitcodes.Panic, why: "gRPC has no such code"}
}

// grpcCodes has one line for each code, in the order of their numbers.
func grpcCodes() [17]rule {
	const retry, panics = exitcodes.Retry, exitcodes.Panic
	access := func(remedy, why string) rule {
		return rule{disposition: exitcodes.Halt, code: exitcodes.Config, remedy: remedy, why: why}
	}
	return [17]rule{
		codes.OK:                 {disposition: panics, why: "an error that says there is none"},
		codes.Canceled:           {disposition: retry, why: "cancelled by the server or with the connection; our own context is asked before"},
		codes.Unknown:            {disposition: retry, why: "etcd's code for errors of raft, such as a proposal dropped in an election"},
		codes.InvalidArgument:    {disposition: panics, why: "the server took our request for malformed"},
		codes.DeadlineExceeded:   {disposition: retry, why: "no answer in time"},
		codes.NotFound:           {disposition: panics, why: "an answer to a call that the driver never makes"},
		codes.AlreadyExists:      {disposition: panics, why: "an answer to a call that the driver never makes"},
		codes.PermissionDenied:   access("check the rights of the catalog's user", "a proxy or the server refuses this user"),
		codes.ResourceExhausted:  {disposition: retry, why: "too many streams, or an answer too large to receive, after the write"},
		codes.FailedPrecondition: {disposition: retry, why: "a state of the server that passes"},
		codes.Aborted:            {disposition: retry, why: "asks for another try"},
		codes.OutOfRange:         {disposition: panics, why: "a revision that the store never had"},
		codes.Unimplemented:      access("the endpoint is no etcd v3 server, or too old a one", "fails the same way at each attempt"),
		codes.Internal:           {disposition: retry, why: "a broken stream between client and server"},
		codes.Unavailable:        {disposition: retry, why: "connection lost, perhaps after the write"},
		codes.DataLoss:           {disposition: panics, means: driver.ErrCorrupt, remedy: "restore the etcd cluster", why: "says itself that data is lost"},
		codes.Unauthenticated:    access("check user and password", "a proxy or the server knows nobody of this name"),
	}
}
