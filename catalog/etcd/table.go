package etcd

import (
	"errors"
	"strconv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/neterr"
)

const (
	report       = "this is a defect of this library or of the server: report it"
	lookAtClient = "find out what else speaks to etcd through this process's client, and look at the server's log"
)

// errorTable is the one place that says what an error means. It goes from the
// narrow to the wide: our own errors, TLS, etcd's errors, contexts, gRPC codes,
// the network.
var errorTable = driver.Table{
	Store: "etcd",
	Families: []driver.Family{
		ours(), byClient(), neterr.Certificates(remedies), neterr.Alerts(remedies),
		byEtcd(), neterr.Context(), byCode(), neterr.System(remedies), neterr.Network(remedies), neterr.Other(),
	},
}

// Errors returns what this driver knows about errors. Classification goes by
// the same table.
func Errors() driver.Table { return errorTable.Clone() }

var remedies = neterr.Remedies{
	TLS:     "check the certificates of both sides, the CA and the host name",
	Name:    "check the host's name in the URL",
	Address: "correct host and port in the URL, and the rights of this process",
	Start:   "start etcd, or correct the socket's path in the URL",
}

// ours are the errors of this package, and of package driver as it uses them.
func ours() driver.Family {
	const unknown, refused = driver.Unknown, driver.NotApplied
	retry := func(remedy string) driver.Class {
		return driver.Class{Disposition: exitcodes.Retry, Remedy: remedy}
	}
	panics := func(remedy string) driver.Class {
		return driver.Class{Disposition: exitcodes.Panic, Remedy: remedy}
	}
	is := neterr.Is
	return driver.Family{
		Name: "driver", Source: "this driver",
		Entries: []driver.Entry{
			is(driver.ErrConflict, "driver.ErrConflict", driver.Class{}, refused, "the condition did not hold; the newest head says what follows"),
			is(driver.ErrCorrupt, "driver.ErrCorrupt", panics("restore the prefix from a backup of the whole cluster; do not edit it"), refused, "found before anything was written"),
			is(driver.ErrCompacted, "driver.ErrCompacted", driver.Class{}, refused, "the record was deleted, since a snapshot stands for it; that says what follows"),
			is(driver.ErrTooLarge, "driver.ErrTooLarge", driver.Class{}, refused, "the caller's value is above the limit, which is looked at before anything is sent"),
			is(driver.ErrBlocked, "driver.ErrBlocked", retry("look at the process that claims: end it, and its lease ends too"), refused, "claims under way end, or their leases do"),
			is(ErrUnguardable, "etcd.ErrUnguardable", driver.Class{Remedy: "if a holder that lost its token may do it, call it on Unguarded"}, refused, "a guarded client was asked for what no guard can stop; nothing was sent"),
			is(errMisuse, "misuse", panics(report), refused, "a defect above the driver; nothing was sent"),
			is(errCatalog, "register beneath a catalog", driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config, Remedy: "give the register a prefix of its own; what is in the catalog's cluster is guarded by the catalog's own token"}, refused,
				"its token is the newest by itself"),
			is(errWaiting, "claim under way", retry(""), refused, "refused while a claim is under way, which is a definite answer"),
			is(errClosed, "closed", driver.Class{}, refused, "the caller closed it"),
			is(errReplaced, "replaced", retry(""), unknown, "the newest one is there to be read"),
			is(errClusters, "several clusters", driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config, Remedy: "name only the members of one cluster in the URL"}, refused,
				"found before anything is sent: a write could land in both"),
			is(errForeign, "another cluster", retry("remove the server from the URL, or make it a member of the cluster again"), refused,
				"found before anything is sent to it; the other endpoints may answer later"),
			is(errSilent, "no answer to a greeting", retry("if the server wants TLS, use etcds:// instead of etcd://, and a client's certificate that it trusts"), unknown,
				"a server that ends does the same as one that wants TLS, or another certificate"),
			is(errWatchEnded, "watch ended", retry(""), unknown, "the catalog watches again"),
		},
	}
}

// byClient are the errors of etcd's client and of gRPC itself that are values.
func byClient() driver.Family {
	const unknown, refused = driver.Unknown, driver.NotApplied
	config := func(remedy string) driver.Class {
		return driver.Class{Disposition: exitcodes.Halt, Code: exitcodes.Config, Remedy: remedy}
	}
	retry := driver.Class{Disposition: exitcodes.Retry}
	is := neterr.Is
	return driver.Family{
		Name: "client", Source: "the errors of etcd's client v3 and of gRPC",
		Entries: []driver.Entry{
			is(clientv3.ErrNoAvailableEndpoints, "clientv3.ErrNoAvailableEndpoints", retry, refused, "there was nobody to send to"),
			is(clientv3.ErrOldCluster, "clientv3.ErrOldCluster", config("upgrade the etcd cluster"), refused, "found before the first call"),
			is(clientv3.ErrMutuallyExclusiveCfg, "clientv3.ErrMutuallyExclusiveCfg", config("give the client a password or a token, and not both"), refused, "found before the first call"),
			neterr.As[clientv3.ErrKeepAliveHalted]("clientv3.ErrKeepAliveHalted", "keep alive halted", nil, retry, unknown,
				"a lease is not renewed any more: it costs its claim, and no lease is what a token rests on"),
			is(grpc.ErrClientConnClosing, "grpc.ErrClientConnClosing", retry, unknown, "the client is being closed, perhaps with a write under way"),
			is(grpc.ErrClientConnTimeout, "grpc.ErrClientConnTimeout", retry, unknown, "no connection came to be in time"),
			is(grpc.ErrServerStopped, "grpc.ErrServerStopped", driver.Class{Disposition: exitcodes.Panic, Remedy: report}, unknown, "of a gRPC server, which the driver is none"),
		},
	}
}

// byCode lists gRPC's codes, for errors to which etcd gave no name of its own.
// No code alone proves that a write was refused.
func byCode() driver.Family {
	f := driver.Family{
		Name: "gRPC code", Source: "codes of google.golang.org/grpc",
		Key: func(err error) (string, bool) {
			var own rpctypes.EtcdError
			if errors.As(err, &own) {
				return grpcNumber(own.Code()), true
			}
			s, ok := status.FromError(err)
			return grpcNumber(s.Code()), ok
		},
		Class: func(text string) (string, bool) {
			_, err := strconv.ParseUint(text, 10, 32)
			return "", err == nil
		},
	}
	add := func(code codes.Code, disposition exitcodes.Disposition, remedy, why string) {
		class := driver.Class{Disposition: disposition, Remedy: remedy}
		if disposition == exitcodes.Halt {
			class.Code = exitcodes.Config
		}
		f.Entries = append(f.Entries, driver.Line(grpcNumber(code), code.String(), class, driver.Unknown, why))
	}
	const retry, halt, panics = exitcodes.Retry, exitcodes.Halt, exitcodes.Panic
	add(codes.OK, panics, report, "an error that says there is none")
	add(codes.Canceled, retry, "", "cancelled by the server or with the connection; our own context is asked before")
	add(codes.Unknown, retry, "", "etcd's code for errors of raft, such as a proposal dropped in an election")
	add(codes.InvalidArgument, panics, report, "the server took our request for malformed")
	add(codes.DeadlineExceeded, retry, "", "no answer in time")
	add(codes.NotFound, panics, report, "an answer to a call that the driver never makes")
	add(codes.AlreadyExists, panics, report, "an answer to a call that the driver never makes")
	add(codes.PermissionDenied, halt, "check the rights of the catalog's user", "a proxy or the server refuses this user")
	add(codes.ResourceExhausted, retry, "", "too many streams, or an answer too large to receive, after the write")
	add(codes.FailedPrecondition, retry, "", "a state of the server that passes")
	add(codes.Aborted, retry, "", "asks for another try")
	add(codes.OutOfRange, panics, report, "a revision that the store never had")
	add(codes.Unimplemented, halt, "the endpoint is no etcd v3 server, or too old a one", "fails the same way at each attempt")
	add(codes.Internal, retry, "", "a broken stream between client and server")
	add(codes.Unavailable, retry, "", "connection lost, perhaps after the write")
	add(codes.DataLoss, panics, "restore the etcd cluster", "says itself that data is lost")
	add(codes.Unauthenticated, halt, "check user and password", "a proxy or the server knows nobody of this name")
	for i, e := range f.Entries {
		if e.Code == grpcNumber(codes.DataLoss) {
			f.Entries[i].Is = driver.ErrCorrupt
		}
	}
	return f
}

func grpcNumber(code codes.Code) string { return strconv.FormatUint(uint64(code), 10) }
