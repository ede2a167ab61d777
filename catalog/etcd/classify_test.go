package etcd

import (
	"bytes"
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
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

func TestASentWriteIsUnknownUnlessTheAnswerIsARefusal(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err         error
		disposition exitcodes.Disposition
		outcome     driver.Outcome // where the write was sent
		code        exitcodes.Code
	}{
		{fmt.Errorf("%w: moved", driver.ErrConflict), exitcodes.None, driver.NotApplied, 0},
		{corrupt("foreign"), exitcodes.Panic, driver.NotApplied, 0},
		{rpctypes.ErrGRPCNoSpace, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrNoSpace, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrTooManyRequests, exitcodes.Retry, driver.NotApplied, 0},
		{rpctypes.ErrTimeout, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrGRPCTimeoutWaitAppliedIndex, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrGRPCLeaderChanged, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrGRPCTimeoutDueToLeaderFail, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrGRPCTimeoutDueToConnectionLost, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrGRPCStopped, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrGRPCCanceled, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrGRPCDeadlineExceeded, exitcodes.Retry, driver.Unknown, 0},
		{grpc.ErrClientConnClosing, exitcodes.Retry, driver.Unknown, 0},
		{grpc.ErrClientConnTimeout, exitcodes.Retry, driver.Unknown, 0},
		{fmt.Errorf("%w: %w", errSilent, io.EOF), exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrAuthFailed, exitcodes.Halt, driver.NotApplied, exitcodes.Config},
		{rpctypes.ErrClusterIDMismatch, exitcodes.Halt, driver.NotApplied, exitcodes.Config},
		{rpctypes.ErrCorrupt, exitcodes.Panic, driver.Unknown, 0},
		{rpctypes.ErrTimeoutWaitAppliedIndex, exitcodes.Retry, driver.Unknown, 0},
		{rpctypes.ErrGRPCNotSupportedForLearner, exitcodes.Retry, driver.NotApplied, 0},
		{fmt.Errorf("wrapped: %w", rpctypes.ErrGRPCNotLeader), exitcodes.Retry, driver.NotApplied, 0},
		{status.Error(codes.InvalidArgument, "etcdserver: a new refusal"), exitcodes.Panic, driver.Unknown, 0},
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
	t.Parallel()
	for err, means := range map[error]error{
		rpctypes.ErrGRPCNoSpace:          driver.ErrFull,
		rpctypes.ErrGRPCRequestTooLarge:  driver.ErrTooLarge,
		rpctypes.ErrGRPCCorrupt:          driver.ErrCorrupt,
		status.Error(codes.DataLoss, ""): driver.ErrCorrupt,
	} {
		_, wrapped := classify(err, sent)
		require.ErrorIs(t, wrapped, means)
	}
}

func TestNoCodeOfGRPCsAloneIsARefusal(t *testing.T) {
	t.Parallel()
	for _, e := range byCode().Entries {
		require.Equal(t, driver.Unknown, e.After.Outcome, e.Name)
	}
}

func TestTheFormsOfARecordAreFrozen(t *testing.T) {
	t.Parallel()
	small := driver.Record{
		Revision: 258, ID: driver.ID{0: 1, 15: 0xff},
		Token: fence.Token{Generation: 7, Epoch: 41}, Payload: []byte("payload\x00\xff"),
	}
	large := small
	large.Payload = make([]byte, 5<<20+7)
	for name, rec := range map[string]driver.Record{"record.golden": small, "record-chunked.golden": large} {
		golden, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		b, err := marshalRecord(rec)
		require.NoError(t, err)
		require.Equal(t, string(golden), fmt.Sprintf("%x\n", b))
		again, chunked, err := unmarshalRecord(258, b)
		require.NoError(t, err)
		if chunked > 0 {
			require.EqualValues(t, len(rec.Payload), chunked)
			rec.Payload = nil
		}
		require.Equal(t, rec, again)
		bad := [][]byte{nil, b[:recordHeader-1], append([]byte{3}, b[1:]...)}
		if chunked > 0 {
			bad = append(bad, b[:recordHeader], b[:len(b)-1], append(bytes.Clone(b), 0), append(bytes.Clone(b[:recordHeader]), make([]byte, 8)...))
		}
		for _, bad := range bad {
			_, _, err := unmarshalRecord(258, bad)
			require.ErrorIs(t, err, errRecord)
		}
	}
}

func TestTheNamesOfKeysAreFrozen(t *testing.T) {
	t.Parallel()
	id, k := driver.ID{0: 1, 15: 0xff}, keys{"p"}
	const hex = "010000000000000000000000000000ff"
	for want, key := range map[string]string{
		"p/log/0000000000000102":                          k.record(258),
		"p/claim/0000000000000102":                        k.claim(258),
		"p/snapshot":                                      k.snapshot(),
		"p/part/" + hex + "/00000102":                     k.part(id, 258),
		"p/staged/0000000000000102/" + hex:                k.manifest(258, id),
		"p/payload/0000000000000102/" + hex + "/0000000b": k.chunk(258, id, 11),
	} {
		require.Equal(t, want, key)
	}
	got, err := k.snapshotOf([]byte(k.part(id, 3)))
	require.NoError(t, err)
	require.Equal(t, id, got)
	revision, got, err := k.batchOf([]byte(k.manifest(258, id)))
	require.NoError(t, err)
	require.Equal(t, id, got)
	require.EqualValues(t, 258, revision)
	for _, foreign := range []string{"", "x", "258/" + hex, "0000000000000102/" + hex[1:], "0000000000000102/" + hex + "/x"} {
		_, _, err := k.batchOf([]byte(k.staged() + foreign))
		require.ErrorIs(t, err, driver.ErrCorrupt, foreign)
		_, err = k.snapshotOf([]byte(k.parts() + foreign))
		require.ErrorIs(t, err, driver.ErrCorrupt, foreign)
	}
}

func TestTheFormOfTheLogsEndIsFrozen(t *testing.T) {
	t.Parallel()
	id := driver.ID{0: 1, 15: 0xff}
	const text = "0000000000000102-010000000000000000000000000000ff"
	require.Equal(t, text, endText(258, id))
	revision, again, err := parseEnd([]byte(text))
	require.NoError(t, err)
	require.Equal(t, id, again)
	require.EqualValues(t, 258, revision)
	require.Equal(t, "p/head\x00end", keys{"p"}.end())
	for _, bad := range []string{"", "-", text[1:], "0" + text, text + "0", text[:16] + text[17:], "000000000000010g" + text[16:], text[:len(text)-2] + "FF"} {
		_, _, err := parseEnd([]byte(bad))
		require.ErrorIs(t, err, errEnd, bad)
	}
}

func TestADeadlineIsTheContextsWhoeverNoticedIt(t *testing.T) {
	t.Parallel()
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
