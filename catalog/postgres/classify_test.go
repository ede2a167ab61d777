package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/exitcodes"
)

func answer(severity, code string) error {
	return fmt.Errorf("wrapped: %w", &pgconn.PgError{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: "m"})
}

func TestEveryKindOfErrorHasItsDisposition(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want exitcodes.Disposition
		code exitcodes.Code
		is   error
	}{
		{answer("FATAL", "28P01"), exitcodes.Halt, exitcodes.Config, nil},
		{answer("FATAL", "28000"), exitcodes.Halt, exitcodes.Config, nil},
		{answer("FATAL", "3D000"), exitcodes.Halt, exitcodes.Config, nil},
		{answer("ERROR", "42501"), exitcodes.Halt, exitcodes.Config, nil},
		{answer("ERROR", "42P01"), exitcodes.Halt, exitcodes.Config, nil},
		{answer("ERROR", "42601"), exitcodes.Panic, 0, nil},
		{answer("ERROR", "40001"), exitcodes.Retry, 0, nil},
		{answer("ERROR", "40P01"), exitcodes.Retry, 0, nil},
		{answer("ERROR", "25006"), exitcodes.Retry, 0, nil},
		{answer("FATAL", "25P03"), exitcodes.Retry, 0, nil},
		{answer("FATAL", "53300"), exitcodes.Retry, 0, nil},
		{answer("ERROR", "53100"), exitcodes.Retry, 0, driver.ErrFull},
		{answer("FATAL", "57P03"), exitcodes.Retry, 0, nil},
		{answer("FATAL", "57P04"), exitcodes.Halt, exitcodes.Config, nil},
		{answer("ERROR", "XX000"), exitcodes.Halt, 0, nil},
		{answer("ERROR", "XX001"), exitcodes.Panic, 0, driver.ErrCorrupt},
		{answer("ERROR", "23505"), exitcodes.None, 0, nil},
		{&pgconn.PgError{Severity: "ERROR", Code: "23505", SchemaName: "fencepost"}, exitcodes.Panic, 0, driver.ErrCorrupt},
		{answer("ERROR", "0A000"), exitcodes.Halt, exitcodes.Config, nil},
		{&pgconn.PgError{Severity: "ERROR", Code: "0A000", Routine: "RevalidateCachedQuery"}, exitcodes.Retry, 0, nil},
		{answer("ERROR", "54000"), exitcodes.Retry, 0, nil},
		{answer("ERROR", "54001"), exitcodes.None, 0, nil},
		{answer("ERROR", "54011"), exitcodes.None, 0, nil},
		{answer("ERROR", "54023"), exitcodes.None, 0, nil},
		{answer("ERROR", "53999"), exitcodes.Retry, 0, nil}, // unlisted, of class 53
		{&pgconn.ConnectError{}, exitcodes.Halt, exitcodes.Config, nil},
		{fmt.Errorf("%w: %w", pgconn.ErrReadOnlyConnection, &pgconn.ConnectError{}), exitcodes.Retry, 0, nil},
		{answer("ERROR", "22021"), exitcodes.None, 0, nil},
		{answer("ERROR", "ZZ123"), exitcodes.Panic, 0, nil},
		{answer("ERROR", ""), exitcodes.Panic, 0, nil},
		{x509.UnknownAuthorityError{}, exitcodes.Halt, exitcodes.Config, nil},
		{x509.HostnameError{Certificate: &x509.Certificate{}}, exitcodes.Halt, exitcodes.Config, nil},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(48)}, exitcodes.Halt, exitcodes.Config, nil},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(80)}, exitcodes.Retry, 0, nil},
		{&net.DNSError{IsNotFound: true}, exitcodes.Retry, 0, nil},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, exitcodes.Retry, 0, nil},
		{os.NewSyscallError("connect", syscall.EACCES), exitcodes.Halt, exitcodes.Config, nil},
		{syscall.EBADF, exitcodes.Panic, 0, nil},
		{io.ErrUnexpectedEOF, exitcodes.Retry, 0, nil},
		{net.ErrClosed, exitcodes.Retry, 0, nil},
		{pgconn.ErrConnClosed, exitcodes.Retry, 0, nil},
		{context.DeadlineExceeded, exitcodes.Retry, 0, nil},
		{context.Canceled, exitcodes.None, 0, nil},
		{pgx.ErrTxCommitRollback, exitcodes.Retry, 0, nil},
		{pgx.ErrTxClosed, exitcodes.Panic, 0, nil},
		{&pgconn.ParseConfigError{}, exitcodes.Halt, exitcodes.Config, nil},
		{driver.ErrConflict, exitcodes.None, 0, nil},
		{driver.ErrCorrupt, exitcodes.Panic, 0, nil},
		{errors.New("never seen"), exitcodes.Panic, 0, nil},
	} {
		t.Run(fmt.Sprintf("%T %v", c.err, c.err), func(t *testing.T) {
			class, is := classify(c.err, notSent)
			require.Equal(t, c.want, class.Disposition)
			require.Equal(t, c.code, class.Code)
			require.Equal(t, c.is, is)
			require.Equal(t, driver.NotApplied, class.Outcome)
			if class.Code == exitcodes.Config {
				require.NotEmpty(t, class.Remedy, "an operator must be told what to do")
			}
		})
	}
}

func TestOnlyAnAnswerOfTheServerSettlesAWriteThatWasSent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want driver.Outcome
	}{
		{answer("ERROR", "57014"), driver.NotApplied},
		{answer("ERROR", "40001"), driver.NotApplied},
		{answer("ERROR", "53100"), driver.NotApplied},
		{answer("ERROR", "54000"), driver.NotApplied},
		{answer("FATAL", "54000"), driver.Unknown},
		{pgx.ErrTxCommitRollback, driver.NotApplied},
		{answer("FATAL", "57P01"), driver.Unknown},
		{answer("PANIC", "53100"), driver.Unknown},
		{answer("ERROR", "40003"), driver.Unknown},
		{answer("ERROR", "08P01"), driver.Unknown}, // a pooler's word
		{answer("ERROR", "XX000"), driver.Unknown},
		{answer("ERROR", "58030"), driver.Unknown},
		{answer("ERROR", "ZZ123"), driver.Unknown},
		{answer("ERROR", "40999"), driver.Unknown}, // unlisted: its class says what to do, and not what it left
		{answer("", "40001"), driver.Unknown},
		{fmt.Errorf("%w: %w", driver.ErrConflict, answer("ERROR", "40001")), driver.NotApplied},
		{pgconn.ErrConnClosed, driver.Unknown}, // pgx calls it safe to retry
		{context.DeadlineExceeded, driver.Unknown},
		{context.Canceled, driver.Unknown},
		{io.EOF, driver.Unknown},
		{errCut, driver.Unknown},
		{errors.New("never seen"), driver.Unknown},
	} {
		for _, sent := range []sent{statementSent, commitSent} {
			class, _ := classify(c.err, sent)
			require.Equal(t, c.want, class.Outcome, c.err)
		}
	}
}

func TestAnErrorOfTheStoreIsAlsoTheOneOfPackageDriver(t *testing.T) {
	t.Parallel()
	for code, is := range map[string]error{"53100": driver.ErrFull, "XX001": driver.ErrCorrupt, "XX002": driver.ErrCorrupt} {
		err := new(Store).fail("append", answer("ERROR", code), statementSent)
		require.ErrorIs(t, err, is, code)
		require.Equal(t, code, sqlState(err), "and what the server said is kept")
	}
	err := new(Store).fail("append", answer("ERROR", "57014"), statementSent)
	require.NotErrorIs(t, err, driver.ErrFull)
	require.NotErrorIs(t, err, driver.ErrCorrupt)
}

func TestAServerOutOfTransactionIdsSaysWhatToDo(t *testing.T) {
	t.Parallel()
	class, _ := classify(answer("ERROR", "54000"), commitSent)
	require.Contains(t, class.Remedy, "wraparound: VACUUM")
}

func TestAnAnswerInAnotherLanguageIsJudgedByItsOwnSeverity(t *testing.T) {
	t.Parallel()
	err := &pgconn.PgError{Severity: "FEHLER", SeverityUnlocalized: "ERROR", Code: "57014"}
	class, _ := classify(err, statementSent)
	require.Equal(t, driver.NotApplied, class.Outcome)
}

func TestAWarningOfSomebodysTriggerIsNoCutWait(t *testing.T) {
	t.Parallel()
	require.True(t, cutsWait(&pgconn.Notice{Code: "01000", Routine: "SyncRepWaitForLSN"}))
	require.True(t, cutsWait(&pgconn.Notice{Code: "57P01", Routine: "SyncRepWaitForLSN"}))
	require.False(t, cutsWait(&pgconn.Notice{Code: "01000", Routine: "exec_stmt_raise"}))
	require.False(t, cutsWait(&pgconn.Notice{Code: "00000"}))
}
