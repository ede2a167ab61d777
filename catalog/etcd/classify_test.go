package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

func TestASentWriteIsUnknownUnlessTheAnswerIsARefusal(t *testing.T) {
	for _, test := range []struct {
		err         error
		disposition exitcodes.Disposition
		outcome     driver.Outcome // where the write was sent
		code        exitcodes.Code
	}{
		{rpctypes.ErrGRPCNoSpace, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrNoSpace, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrTooManyRequests, exitcodes.Retry, driver.NotApplied, 0},
		{rpctypes.ErrTimeout, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrGRPCTimeoutWaitAppliedIndex, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrGRPCLeaderChanged, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrAuthFailed, exitcodes.Halt, driver.NotApplied, exitcodes.Config},
		{rpctypes.ErrClusterIDMismatch, exitcodes.Halt, driver.NotApplied, exitcodes.Config},
		{rpctypes.ErrCorrupt, exitcodes.Panic, driver.Unknown, 0},
		{rpctypes.ErrFutureRev, exitcodes.Panic, driver.NotApplied, 0},
		{status.Error(codes.Unavailable, "error reading from server: EOF"), exitcodes.Retry, driver.Unknown, 0},
		{status.Error(codes.Unauthenticated, "proxy"), exitcodes.Halt, driver.Unknown, exitcodes.Config},
		{status.Error(codes.DataLoss, "x"), exitcodes.Panic, driver.Unknown, 0},
		{status.Error(codes.Code(99), "x"), exitcodes.Panic, driver.Unknown, 0},
		{context.Canceled, exitcodes.None, driver.Unknown, 0},
		{context.DeadlineExceeded, exitcodes.Retry, driver.Unknown, 0},
		{fmt.Errorf("read: %w", syscall.ECONNRESET), exitcodes.Retry, driver.Unknown, 0},
		{io.EOF, exitcodes.Retry, driver.Unknown, 0},
		{errors.New("news"), exitcodes.Panic, driver.Unknown, 0},
	} {
		class, _ := classify(test.err, sent)
		require.Equal(t, test.disposition, class.Disposition, "%v", test.err)
		require.Equal(t, test.outcome, class.Outcome, "%v", test.err)
		require.Equal(t, test.code, class.Code, "%v", test.err)
		class, _ = classify(test.err, read)
		require.Equal(t, driver.NotApplied, class.Outcome, "%v", test.err)
	}
}

func TestAnErrorIsWrappedInWhatItMeansToEveryStore(t *testing.T) {
	for err, means := range map[error]error{
		rpctypes.ErrGRPCNoSpace:         driver.ErrFull,
		rpctypes.ErrGRPCRequestTooLarge: driver.ErrTooLarge,
		rpctypes.ErrGRPCCorrupt:         driver.ErrCorrupt,
	} {
		_, wrapped := classify(err, sent)
		require.ErrorIs(t, wrapped, means)
	}
}

func TestEveryLineOfTheTablesGivesItsReasonOnce(t *testing.T) {
	seen := map[error]bool{}
	for _, table := range [][]entry{byError(), byEtcd(), byContext()} {
		for _, e := range table {
			require.False(t, seen[e.err], "%v stands twice", e.err)
			require.NotEmpty(t, e.why, "%v", e.err)
			seen[e.err] = true
		}
	}
	for code, r := range grpcCodes() {
		require.NotEmpty(t, r.why, "%v", codes.Code(code))
		require.False(t, r.refused, "%v: no code alone is a refusal", codes.Code(code))
	}
}

func TestTheFormOfARecordIsFrozen(t *testing.T) {
	rec := driver.Record{
		Revision: 258, ID: driver.ID{0: 1, 15: 0xff},
		Token: fence.Token{Generation: 7, Epoch: 41}, Payload: []byte("payload\x00\xff"),
	}
	golden, err := os.ReadFile(filepath.Join("testdata", "record.golden"))
	require.NoError(t, err)
	b, err := marshalRecord(rec)
	require.NoError(t, err)
	require.Equal(t, golden, fmt.Appendf(nil, "%x\n", b))
	again, err := unmarshalRecord(258, b)
	require.NoError(t, err)
	require.Equal(t, rec, again)

	require.Equal(t, "p/log/0000000000000102", keys{"p"}.record(258))
	require.Equal(t, "p/claim/0000000000000102", keys{"p"}.claim(258))
	for _, bad := range [][]byte{nil, b[:recordHeader-1], append([]byte{2}, b[1:]...)} {
		_, err := unmarshalRecord(258, bad)
		require.ErrorIs(t, err, errRecord)
	}
}

func TestADeadlineIsTheContextsWhoeverNoticedIt(t *testing.T) {
	for _, err := range []error{
		status.Error(codes.DeadlineExceeded, "context deadline exceeded"),
		rpctypes.ErrGRPCDeadlineExceeded,
		context.DeadlineExceeded,
	} {
		class, shown := classify(err, sent)
		require.ErrorIs(t, shown, context.DeadlineExceeded)
		require.Equal(t, exitcodes.Retry, class.Disposition)
		require.Equal(t, driver.Unknown, class.Outcome)
	}
	_, shown := classify(status.Error(codes.Unavailable, "x"), sent)
	require.NotErrorIs(t, shown, context.DeadlineExceeded)
}
