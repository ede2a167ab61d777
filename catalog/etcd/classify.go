package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"

	clientv3 "go.etcd.io/etcd/client/v3"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

// A phase says how far a call had come when it failed.
type phase bool

const (
	read phase = false // no write was sent
	sent phase = true  // a write was sent, and may land even now
)

var (
	errClosed     = errors.New("the store is closed")
	errWatchEnded = errors.New("the watch ended")
)

// A rule is one line of the table: what an error means. Why says it in words
// for who reads the table.
type rule struct {
	disposition exitcodes.Disposition
	refused     bool  // the answer of a server that did not, and will not, apply the write
	means       error // what the error is wrapped in; nil where it says enough
	code        exitcodes.Code
	remedy      string
	why         string
}

// classify returns what err means, and err as it is to be shown. A write that
// was sent has outcome unknown, unless err is a refusal: the client returns
// the same bare "context deadline exceeded" whether a write was never sent,
// was lost or has landed.
func classify(err error, p phase) (driver.Class, error) {
	err = typed(err)
	r := find(err)
	class := driver.Class{Disposition: r.disposition, Code: r.code, Remedy: r.remedy}
	if p == sent && !r.refused {
		class.Outcome = driver.Unknown
	}
	if r.means != nil && !errors.Is(err, r.means) {
		err = fmt.Errorf("%w: %w", r.means, err)
	}
	return class, err
}

// typed returns err with a gRPC status in it turned into etcd's own error, and
// one about the deadline into the context's, which the client does for some
// calls only.
func typed(err error) error {
	s, ok := err.(interface{ GRPCStatus() *status.Status })
	if !ok {
		return err
	}
	if own := rpctypes.Error(s.GRPCStatus().Err()); errors.As(own, new(rpctypes.EtcdError)) {
		err = own
	}
	if s.GRPCStatus().Code() == codes.DeadlineExceeded && !errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}

// waits reports whether err may come from waiting for a connection.
func waits(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) ||
		status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded
}

// find goes from the narrow to the wide: our own errors, TLS, etcd's errors,
// contexts, gRPC codes, the network. What none of them knows is panic.
func find(err error) rule {
	for _, r := range byError() {
		if errors.Is(err, r.err) {
			return r.rule
		}
	}
	if distrust(err) {
		return rule{disposition: exitcodes.Halt, code: exitcodes.Config,
			remedy: "check the certificates of both sides, the CA and the host name", why: "TLS fails the same way at each attempt"}
	}
	var own rpctypes.EtcdError
	if errors.As(err, &own) {
		return byOwn(own)
	}
	for _, r := range byContext() {
		if errors.Is(err, r.err) {
			return r.rule
		}
	}
	if s, ok := status.FromError(err); ok {
		return byCode(s.Code())
	}
	if network(err) {
		return rule{disposition: exitcodes.Retry, why: "networks come back"}
	}
	return rule{disposition: exitcodes.Panic, why: "nobody knows what it means"}
}

// byOwn returns the rule for an error that etcd names. One that is newer than
// this table goes by its code and counts as no refusal.
func byOwn(own rpctypes.EtcdError) rule {
	for _, r := range byEtcd() {
		if errors.Is(own, r.err) {
			return r.rule
		}
	}
	return byCode(own.Code())
}

// distrust reports whether err is a TLS handshake that will fail again.
func distrust(err error) bool {
	return errors.As(err, new(*tls.CertificateVerificationError)) ||
		errors.As(err, new(x509.UnknownAuthorityError)) ||
		errors.As(err, new(x509.HostnameError)) ||
		errors.As(err, new(x509.CertificateInvalidError)) ||
		errors.As(err, new(x509.SystemRootsError)) ||
		errors.As(err, new(x509.UnhandledCriticalExtension)) ||
		errors.As(err, new(x509.ConstraintViolationError)) ||
		errors.As(err, new(x509.InsecureAlgorithmError)) ||
		errors.As(err, new(tls.RecordHeaderError)) ||
		errors.As(err, new(*tls.ECHRejectionError)) ||
		remoteAlert(err)
}

// network reports whether err comes from a connection. Every number of the
// operating system that a socket returns is a net.Error too.
func network(err error) bool {
	return errors.As(err, new(net.Error)) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// An entry is a rule for one error.
type entry struct {
	err error
	rule
}

// byError lists what the driver itself and the client's constructor return.
func byError() []entry {
	const none, retry, halt, panics = exitcodes.None, exitcodes.Retry, exitcodes.Halt, exitcodes.Panic
	return []entry{
		{driver.ErrConflict, rule{disposition: none, refused: true, why: "the newest head says what follows"}},
		{driver.ErrCorrupt, rule{disposition: panics, refused: true, remedy: "restore the prefix from a backup of the whole cluster; do not edit it", why: "found before anything was written"}},
		{driver.ErrCompacted, rule{disposition: none, refused: true, why: "the snapshot says what follows"}},
		{driver.ErrTooLarge, rule{disposition: none, refused: true, why: "the caller's value"}},
		{driver.ErrBlocked, rule{disposition: retry, refused: true, remedy: "look at the process that claims: end it, and its lease ends too", why: "claims under way end, or their leases do"}},
		{errMisuse, rule{disposition: panics, refused: true, why: "a bug above the driver; nothing was sent"}},
		{errWaiting, rule{disposition: retry, refused: true, why: "refused while a claim is under way, which is a definite answer"}},
		{errClosed, rule{disposition: none, refused: true, why: "the caller closed it"}},
		{errReplaced, rule{disposition: retry, why: "the newest one is there to be read"}},
		{errWatchEnded, rule{disposition: retry, why: "the catalog watches again"}},
		{clientv3.ErrNoAvailableEndpoints, rule{disposition: retry, refused: true, why: "there was nobody to send to"}},
		{clientv3.ErrOldCluster, rule{disposition: halt, refused: true, code: exitcodes.Config, remedy: "upgrade the etcd cluster", why: "found before the first call"}},
		{clientv3.ErrMutuallyExclusiveCfg, rule{disposition: halt, refused: true, code: exitcodes.Config, why: "found before the first call"}},
	}
}

// byContext lists how a call ends by itself.
func byContext() []entry {
	return []entry{
		{context.Canceled, rule{disposition: exitcodes.None, why: "the caller's wish"}},
		{context.DeadlineExceeded, rule{disposition: exitcodes.Retry, why: "server down, isolated, slow or its answer lost: the client says no more"}},
	}
}
