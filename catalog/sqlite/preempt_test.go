package sqlite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/drivertest"
	"github.com/fencepost/fencepost/exitcodes"
)

func TestARequestReachesTheClaimerPastItsLocks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	claimer, other := openStore(t, path), openStore(t, path)
	require.NoError(t, other.Preempt(t.Context(), []byte("nobody claims")))
	request, err := claimer.Preempted(t.Context())
	require.NoError(t, err)
	require.Nil(t, request, "there is no -claim file yet")
	require.NoFileExists(t, path+"-claim")

	claiming, err := claimer.Claim(drivertest.Context(t))
	require.NoError(t, err)
	for _, text := range []string{"a longer request than the next", "give way", strings.Repeat("x", driver.MaxRequest)} {
		require.NoError(t, other.Preempt(t.Context(), []byte(text)))
		request, err = claimer.Preempted(t.Context())
		require.NoError(t, err)
		require.Equal(t, text, string(request))
	}
	err = other.Preempt(t.Context(), make([]byte, driver.MaxRequest+1))
	require.ErrorIs(t, err, driver.ErrTooLarge)

	claim := drivertest.NextClaim(t, claiming.Head(), 1)
	require.NoError(t, claiming.Install(t.Context(), claim, drivertest.ClaimRecord(claim)), "the requests released the claim's locks")
}

func TestATornRequestIsNone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.db")
	s := openStore(t, path)
	sealed := sealRequest([]byte("give way"))
	for size := range sealed {
		require.NoError(t, os.WriteFile(path+"-claim", sealed[:size], 0o600))
		request, err := s.Preempted(t.Context())
		require.NoError(t, err)
		require.Nil(t, request, "of %d bytes", size)
	}
	for i := range sealed {
		torn := append([]byte(nil), sealed...)
		torn[i] ^= 0x40
		require.NoError(t, os.WriteFile(path+"-claim", torn, 0o600))
		request, err := s.Preempted(t.Context())
		require.NoError(t, err)
		require.Nil(t, request, "byte %d is another", i)
	}
}

func TestNoRequestReachesAFileThatSomebodyPlanted(t *testing.T) {
	t.Parallel()
	for how, plant := range map[string]func(victim, at string) error{
		"a link":      os.Symlink,
		"a hard link": os.Link,
		"a pipe":      func(_, at string) error { return unix.Mkfifo(at, 0o666) },
		"a folder":    func(_, at string) error { return os.Mkdir(at, 0o777) },
	} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			path, victim := filepath.Join(dir, "c.db"), filepath.Join(dir, "victim")
			require.NoError(t, os.WriteFile(victim, []byte("precious"), 0o600))
			require.NoError(t, plant(victim, path+"-claim"))
			s := openStore(t, path)
			err := s.Preempt(t.Context(), []byte("give way"))
			require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), "%v", err)
			_, err = s.Preempted(t.Context())
			require.Equal(t, exitcodes.Config, exitcodes.CodeOf(err), "%v", err)
			text, err := os.ReadFile(victim)
			require.NoError(t, err)
			require.Equal(t, "precious", string(text))
		})
	}
}

func openStore(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}
