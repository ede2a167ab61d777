package postgres

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

// connecting returns what pgx says when each of several hosts fails so.
func connecting(t *testing.T, failures ...error) error {
	t.Helper()
	hosts, ports := "", ""
	byAddress := map[string]error{}
	for i, err := range failures {
		if i > 0 {
			hosts, ports = hosts+",", ports+","
		}
		hosts, ports = hosts+"127.0.0.1", ports+fmt.Sprint(i+1)
		byAddress[fmt.Sprintf("127.0.0.1:%d", i+1)] = err
	}
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%s user=u database=d sslmode=disable", hosts, ports))
	require.NoError(t, err)
	config.DialFunc = func(_ context.Context, _, address string) (net.Conn, error) { return nil, byAddress[address] }
	_, err = pgconn.ConnectConfig(t.Context(), config)
	require.Error(t, err)
	return fmt.Errorf("wrapped: %w", err)
}

func TestOneHostThatMayComeBackIsWorthWaitingFor(t *testing.T) {
	t.Parallel()
	expired := x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	forbidden := answer("FATAL", "28000")
	noFamily := &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EAFNOSUPPORT)}
	misused := syscall.EBADF
	for name, c := range map[string]struct {
		hosts []error
		want  exitcodes.Disposition
		code  exitcodes.Code
	}{
		"expired, refused":            {[]error{expired, refused}, exitcodes.Retry, 0},
		"forbidden, refused":          {[]error{forbidden, refused}, exitcodes.Retry, 0},
		"no family, refused":          {[]error{noFamily, refused}, exitcodes.Retry, 0},
		"misused, refused":            {[]error{misused, refused}, exitcodes.Retry, 0},
		"starting, expired":           {[]error{answer("FATAL", "57P03"), expired}, exitcodes.Retry, 0},
		"expired, expired":            {[]error{expired, expired}, exitcodes.Halt, exitcodes.Config},
		"expired, forbidden":          {[]error{expired, forbidden}, exitcodes.Halt, exitcodes.Config},
		"expired, misused":            {[]error{expired, misused}, exitcodes.Panic, 0},
		"expired, cancelled":          {[]error{expired, context.Canceled}, exitcodes.None, 0},
		"expired, forbidden, refused": {[]error{expired, forbidden, refused}, exitcodes.Retry, 0},
		"another system, refused":     {[]error{errElsewhere, refused}, exitcodes.Retry, 0},
		"another system, standby":     {[]error{errElsewhere, errStandby}, exitcodes.Retry, 0},
		"old timeline, forbidden":     {[]error{errTimeline, forbidden}, exitcodes.Retry, 0},
		"another system, forbidden":   {[]error{errElsewhere, forbidden}, exitcodes.Halt, exitcodes.Config},
		"expired alone":               {[]error{expired}, exitcodes.Halt, exitcodes.Config},
	} {
		t.Run(name, func(t *testing.T) {
			for range c.hosts { // every host is first once
				c.hosts = append(c.hosts[1:], c.hosts[0])
				class, _ := classify(connecting(t, c.hosts...), notSent)
				require.Equal(t, c.want, class.Disposition, c.hosts)
				require.Equal(t, c.code, class.Code, c.hosts)
			}
		})
	}
}

func TestWhatThisDriverSaysOfAConnectionIsNoHostsAffair(t *testing.T) {
	t.Parallel()
	refused := os.NewSyscallError("connect", syscall.ECONNREFUSED)
	class, _ := classify(fmt.Errorf("%w: %w", errUnprepared, connecting(t, refused, refused)), notSent)
	require.Equal(t, exitcodes.Config, class.Code)
}
