package etcd

import (
	"errors"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// A named is one error that etcd's server names. A client knows it by its
// text, and by a variable that has the name.
type named struct {
	name string
	err  error
	why  string
}

// group returns the entries of errors that mean the same.
func group(class driver.Class, after driver.Outcome, rows ...named) (entries []driver.Entry) {
	for _, r := range rows {
		text := rpctypes.ErrorDesc(r.err)
		e := driver.Line(r.name, text, class, after, r.why)
		e.Match = func(err error) bool { return textOf(err) == text }
		if short, ok := strings.CutPrefix(r.name, "Err"); ok && !strings.HasPrefix(short, "GRPC") {
			e.Also = []string{"ErrGRPC" + short}
		}
		entries = append(entries, e)
	}
	return entries
}

// textOf returns the text that a server sent, or "".
func textOf(err error) string {
	var own rpctypes.EtcdError
	if errors.As(err, &own) {
		return own.Error()
	}
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Message()
	}
	return ""
}

// is says which error of package driver the entries are besides.
func is(err error, entries []driver.Entry) []driver.Entry {
	for i := range entries {
		entries[i].Is = err
	}
	return entries
}

// also gives an entry another name.
func also(name string, entries []driver.Entry) []driver.Entry {
	for i := range entries {
		entries[i].Also = append(entries[i].Also, name)
	}
	return entries
}

// byEtcd lists the errors that etcd's server names. Not applied, after the
// commit was sent, are those that a server gives before it proposes a write,
// or instead of applying it.
func byEtcd() driver.Family {
	const unknown, refused = driver.Unknown, driver.NotApplied
	const admin = "an answer to an administrator's call that the driver never makes"
	const ours = "the server took our request for malformed"
	retry := driver.Class{Disposition: exitcodes.Retry}
	config := func(remedy string) driver.Class {
		return driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config, Remedy: remedy}
	}
	access := config("check user, password and role of the catalog's prefix")
	full := driver.Class{Disposition: exitcodes.Retry,
		Remedy: "compact and defragment etcd, raise its quota if need be, then disarm the alarm NOSPACE"}
	large := driver.Class{Remedy: "etcd's --max-request-bytes is below its default of 1.5 MiB"}
	damaged := driver.Class{Disposition: exitcodes.Panic, Remedy: "restore the etcd cluster"}
	bug := driver.Class{Disposition: exitcodes.Panic, Remedy: report}
	return driver.Family{
		Name: "server", Source: "rpctypes of etcd's API v3",
		Note: "An error of etcd's server that is newer than this table goes by its gRPC code, and counts as no refusal.",
		Entries: slices.Concat(
			is(driver.ErrFull, group(full, unknown,
				named{"ErrNoSpace", rpctypes.ErrGRPCNoSpace, "no refusal: the write that crosses the quota is applied and answered so (quotaApplierV3.Txn in etcd's apply/quota.go)"})),
			is(driver.ErrTooLarge, group(large, refused,
				named{"ErrRequestTooLarge", rpctypes.ErrGRPCRequestTooLarge, "refused before the proposal; only this call's value is too large"})),
			is(driver.ErrCorrupt, group(damaged, unknown,
				named{"ErrCorrupt", rpctypes.ErrGRPCCorrupt, "members disagree about their data; who has applied what is open"})),

			also("ErrGRPCRequestTooManyRequests", group(retry, refused,
				named{"ErrTooManyRequests", rpctypes.ErrGRPCRequestTooManyRequests, "the server is behind and proposes nothing"})),
			group(retry, refused,
				named{"ErrNoLeader", rpctypes.ErrGRPCNoLeader, "no quorum to propose to"},
				named{"ErrNotLeader", rpctypes.ErrGRPCNotLeader, "only a leader answers this"},
				named{"ErrUnhealthy", rpctypes.ErrGRPCUnhealthy, "checked before the proposal"},
				named{"ErrNotCapable", rpctypes.ErrGRPCNotCapable, "the cluster is being upgraded"},
				named{"ErrClusterVersionUnavailable", rpctypes.ErrGRPCClusterVersionUnavailable, "the cluster is starting"},
				named{"ErrGRPCNotSupportedForLearner", rpctypes.ErrGRPCNotSupportedForLearner, "a learner takes no writes; another endpoint does"},
				named{"ErrInvalidAuthToken", rpctypes.ErrGRPCInvalidAuthToken, "tokens expire; the client has fetched a new one"},
				named{"ErrAuthOldRevision", rpctypes.ErrGRPCAuthOldRevision, "rights have changed since the token; the client has fetched a new one"},
				named{"ErrLeaseNotFound", rpctypes.ErrGRPCLeaseNotFound, "the claim's lease ended, and its write with it"},
				named{"ErrLeaseExist", rpctypes.ErrGRPCLeaseExist, "another lease has the number; the next grant draws a new one"}),
			group(retry, unknown,
				named{"ErrTimeout", rpctypes.ErrGRPCTimeout, "proposed, and not answered in time"},
				named{"ErrTimeoutDueToLeaderFail", rpctypes.ErrGRPCTimeoutDueToLeaderFail, "proposed to a leader that was lost"},
				named{"ErrTimeoutDueToConnectionLost", rpctypes.ErrGRPCTimeoutDueToConnectionLost, "proposed while the quorum was lost"},
				named{"ErrTimeoutWaitAppliedIndex", rpctypes.ErrGRPCTimeoutWaitAppliedIndex, "the member is behind"},
				named{"ErrLeaderChanged", rpctypes.ErrGRPCLeaderChanged, "the old leader may have proposed it"},
				named{"ErrStopped", rpctypes.ErrGRPCStopped, "the server stopped with the proposal under way"},
				named{"ErrGRPCCanceled", rpctypes.ErrGRPCCanceled, "the server gave the call up, and does not take a proposal back"},
				named{"ErrGRPCDeadlineExceeded", rpctypes.ErrGRPCDeadlineExceeded, "the server's time for the call was over with the proposal perhaps under way"},
				named{"ErrGRPCWatchCanceled", rpctypes.ErrGRPCWatchCanceled, "the server ended a watch; the catalog watches again"},
				named{"ErrCompacted", rpctypes.ErrGRPCCompacted, "the store's history up to there is gone; read anew"}),

			group(access, refused,
				named{"ErrUserEmpty", rpctypes.ErrGRPCUserEmpty, "auth is on, and the request had no user"},
				named{"ErrAuthFailed", rpctypes.ErrGRPCAuthFailed, "wrong user or password"},
				named{"ErrPermissionDenied", rpctypes.ErrGRPCPermissionDenied, "the role does not reach the prefix"},
				named{"ErrUserNotFound", rpctypes.ErrGRPCUserNotFound, "the user was removed"},
				named{"ErrRoleNotFound", rpctypes.ErrGRPCRoleNotFound, "the role was removed"},
				named{"ErrAuthNotEnabled", rpctypes.ErrGRPCAuthNotEnabled, "a token of a cluster that knows no users"},
				named{"ErrRoleEmpty", rpctypes.ErrGRPCRoleEmpty, admin},
				named{"ErrGRPCPermissionNotGiven", rpctypes.ErrGRPCPermissionNotGiven, admin},
				named{"ErrRoleNotGranted", rpctypes.ErrGRPCRoleNotGranted, admin},
				named{"ErrPermissionNotGranted", rpctypes.ErrGRPCPermissionNotGranted, admin},
				named{"ErrUserAlreadyExist", rpctypes.ErrGRPCUserAlreadyExist, admin},
				named{"ErrRoleAlreadyExist", rpctypes.ErrGRPCRoleAlreadyExist, admin},
				named{"ErrRootUserNotExist", rpctypes.ErrGRPCRootUserNotExist, admin},
				named{"ErrRootRoleNotExist", rpctypes.ErrGRPCRootRoleNotExist, admin},
				named{"ErrInvalidAuthMgmt", rpctypes.ErrGRPCInvalidAuthMgmt, admin}),

			also("ErrGRPCClusterIdMismatch", also("ErrClusterIdMismatch",
				group(config("the endpoints belong to different clusters: correct the URL"), refused,
					named{"ErrClusterIDMismatch", rpctypes.ErrGRPCClusterIDMismatch, "another cluster has another history of tokens"}))),
			group(config("raise etcd's --max-txn-ops to its default of 128"), refused,
				named{"ErrTooManyOps", rpctypes.ErrGRPCTooManyOps, "the server takes fewer operations at once than a claim or commit has"}),
			group(config("lower ClaimTTL"), refused,
				named{"ErrLeaseTTLTooLarge", rpctypes.ErrGRPCLeaseTTLTooLarge, "the server grants no lease as long as that"}),
			also("ErrGRPCLearnerNotReady", group(config(lookAtClient), refused,
				named{"ErrMemberLearnerNotReady", rpctypes.ErrGRPCLearnerNotReady, admin})),
			group(config(lookAtClient), refused,
				named{"ErrGRPCInvalidClientAPIVersion", rpctypes.ErrGRPCInvalidClientAPIVersion, "the server does not take this client's version"},
				named{"ErrMemberExist", rpctypes.ErrGRPCMemberExist, admin},
				named{"ErrPeerURLExist", rpctypes.ErrGRPCPeerURLExist, admin},
				named{"ErrMemberNotEnoughStarted", rpctypes.ErrGRPCMemberNotEnoughStarted, admin},
				named{"ErrMemberBadURLs", rpctypes.ErrGRPCMemberBadURLs, admin},
				named{"ErrMemberNotFound", rpctypes.ErrGRPCMemberNotFound, admin},
				named{"ErrMemberNotLearner", rpctypes.ErrGRPCMemberNotLearner, admin},
				named{"ErrTooManyLearners", rpctypes.ErrGRPCTooManyLearners, admin},
				named{"ErrBadLeaderTransferee", rpctypes.ErrGRPCBadLeaderTransferee, admin},
				named{"ErrWrongDowngradeVersionFormat", rpctypes.ErrGRPCWrongDowngradeVersionFormat, admin},
				named{"ErrInvalidDowngradeTargetVersion", rpctypes.ErrGRPCInvalidDowngradeTargetVersion, admin},
				named{"ErrDowngradeInProcess", rpctypes.ErrGRPCDowngradeInProcess, admin},
				named{"ErrNoInflightDowngrade", rpctypes.ErrGRPCNoInflightDowngrade, admin}),

			group(driver.Class{Disposition: exitcodes.Panic, Remedy: "find out who restored etcd, and raise the token above the lost ones: fencepost restored"}, refused,
				named{"ErrFutureRev", rpctypes.ErrGRPCFutureRev, "the store's revision fell: it was restored from an older backup"}),
			group(bug, refused,
				named{"ErrEmptyKey", rpctypes.ErrGRPCEmptyKey, ours},
				named{"ErrKeyNotFound", rpctypes.ErrGRPCKeyNotFound, ours},
				named{"ErrValueProvided", rpctypes.ErrGRPCValueProvided, ours},
				named{"ErrLeaseProvided", rpctypes.ErrGRPCLeaseProvided, ours},
				named{"ErrDuplicateKey", rpctypes.ErrGRPCDuplicateKey, ours},
				named{"ErrInvalidSortOption", rpctypes.ErrGRPCInvalidSortOption, ours})),
	}
}
