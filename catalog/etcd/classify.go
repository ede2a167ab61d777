package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/catalog/driver"
)

// A phase says how far a call had come when it failed.
type phase uint8

const (
	read  phase = iota // no write was sent
	sent               // a write was sent, and may land even now
	doubt              // so, and whatever the answer says of one copy, another may have landed
)

var (
	errClosed     = errors.New("the store is closed")
	errWatchEnded = errors.New("the watch ended")
)

// classify returns what err means, and err as it is to be shown. A write that
// was sent has outcome unknown, unless err is a refusal: the client returns
// the same bare "context deadline exceeded" whether a write was never sent,
// was lost or has landed. Errors is the table that it goes by.
func classify(err error, p phase) (driver.Class, error) {
	err = typed(err)
	m := errorTable.Of(err)
	if is := m.Entry.Is; is != nil && !errors.Is(err, is) {
		err = fmt.Errorf("%w: %w", is, err)
	}
	class := m.Class(p != read)
	if p == doubt {
		class.Outcome = driver.Unknown
	}
	return class, err
}

// leavesOpen reports whether a write that was answered with err may have been
// applied.
func leavesOpen(err error) bool {
	class, _ := classify(err, sent)
	return class.Outcome == driver.Unknown
}

// elsewhere reports whether another member may answer after this one returned
// err: this one is out of reach, of another cluster, has no leader or a new one, or
// did not apply a write in time.
func elsewhere(err error) bool {
	if errors.Is(err, errForeign) {
		return true
	}
	var own rpctypes.EtcdError
	if errors.As(typed(err), &own) {
		return slices.ContainsFunc(unserved, func(e error) bool { return rpctypes.ErrorDesc(e) == own.Error() })
	}
	return waits(err) || status.Code(err) == codes.Canceled
}

// unserved are the answers of a member that can't serve just now, or at all.
var unserved = []error{
	rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCNotLeader, rpctypes.ErrGRPCLeaderChanged, rpctypes.ErrGRPCUnhealthy,
	rpctypes.ErrGRPCStopped, rpctypes.ErrGRPCNotSupportedForLearner, rpctypes.ErrGRPCLearnerNotReady,
	rpctypes.ErrGRPCTimeout, rpctypes.ErrGRPCTimeoutDueToLeaderFail, rpctypes.ErrGRPCTimeoutDueToConnectionLost,
	rpctypes.ErrGRPCTimeoutWaitAppliedIndex, rpctypes.ErrGRPCCanceled, rpctypes.ErrGRPCDeadlineExceeded,
	rpctypes.ErrGRPCClusterVersionUnavailable, rpctypes.ErrGRPCNotCapable,
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
