//go:build unix

package exitcodes_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpipe"
)

// unread starts a role whose standard error nobody reads, and whose service
// manager has stopped reading.
func unread(t *testing.T, role string) (*exec.Cmd, func() played) {
	t.Helper()
	cmd, wait := playing(t, role)
	_, cmd.Stderr = testpipe.Full(t)
	cmd.Env = append(cmd.Env, exitcodes.NotifySocketEnv+"="+testpipe.FullSocket(t))
	return cmd, wait
}

func TestAProcessEndsWithItsCodeAndRecordThoughNobodyReadsWhatItSays(t *testing.T) {
	t.Parallel()
	for role, code := range map[string]int{
		"superseded": 0, "fenced": 166, "go panic": 2, "end": 166, "exit broken": 2, "flush hangs": 0,
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			cmd, wait := unread(t, role)
			require.NoError(t, cmd.Start())
			p := wait()
			require.Equal(t, code, p.code)
			require.EqualValues(t, code, p.record.Code)
		})
	}
}

func TestAStopEndsAProcessThoughNobodyReadsWhatItSaysAndItsCleanUpHangs(t *testing.T) {
	t.Parallel()
	for _, role := range []string{"stop", "hang", "clean-up hangs"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			cmd, wait := unread(t, role)
			awaitReady(t, cmd)
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			p := wait()
			require.Equal(t, 0, p.code)
			require.True(t, p.record.StopRequested)
		})
	}
}

// awaitReady starts a role and returns once its work has begun.
func awaitReady(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
}

func TestASecondSignalEndsAProcessAtOnceThoughNobodyReadsWhatItSays(t *testing.T) {
	t.Parallel()
	cmd, wait := unread(t, "wait")
	awaitReady(t, cmd)
	ended := make(chan played, 1)
	go func() { ended <- wait() }()
	for {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case p := <-ended:
			require.Equal(t, 143, p.code, "its grace is an hour")
			require.EqualValues(t, 143, p.record.Code)
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestTwoSignalsOfOneStopAreOne(t *testing.T) {
	t.Parallel()
	p := stopped(t, "hang", syscall.SIGTERM, syscall.SIGTERM, syscall.SIGINT)
	require.Equal(t, 0, p.code, p.stderr)
	require.True(t, p.record.StopRequested)
}

func TestATerminationLogThatNobodyReadsHoldsUpNoEndAndIsSaid(t *testing.T) {
	t.Parallel()
	for text, path := range map[string]string{
		"nobody reads this pipe": testpipe.FIFO(t),
		"i/o timeout":            testpipe.FullFIFO(t),
	} {
		cmd, wait := playing(t, "helped") // whose record is not looked for
		cmd.Env = append(cmd.Env, roleEnv+"=fenced", exitcodes.TerminationLogEnv+"="+path)
		require.NoError(t, cmd.Start())
		p := wait()
		require.Equal(t, 166, p.code, p.stderr)
		require.Contains(t, p.stderr, "db: writing the ending record: ")
		require.Contains(t, p.stderr, text)
		require.Contains(t, p.stderr, "(halt, exit 166)\n")
	}
}

func TestAPipeThatIsReadGetsTheRecord(t *testing.T) {
	t.Parallel()
	path := testpipe.FIFO(t)
	reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	defer reader.Close()
	require.NoError(t, exitcodes.WriteRecord(path, exitcodes.Record{Reason: "fenced"}))
	line, err := bufio.NewReader(reader).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, `"reason":"fenced"`)
	_, err = exitcodes.ReadRecord(path)
	require.ErrorContains(t, err, "it is no file")
}

func TestATerminationLogKeepsItsModeAndItsOtherNames(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ending")
	for _, mode := range []os.FileMode{0o600, 0o644, 0o666, 0o660} {
		require.NoError(t, os.WriteFile(path, nil, mode))
		require.NoError(t, os.Chmod(path, mode))
		require.NoError(t, exitcodes.WriteRecord(path, exitcodes.Record{Reason: "first"}))
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode())
	}
	if os.Geteuid() == 0 { // another user's, which nobody else can make
		for _, owner := range [][]int{{12345, 54321}, {0, 54321}} {
			require.NoError(t, os.Chown(path, owner[0], owner[1]))
			require.NoError(t, exitcodes.WriteRecord(path, exitcodes.Record{Reason: "first"}))
			info, err := os.Stat(path)
			require.NoError(t, err)
			stat := info.Sys().(*syscall.Stat_t)
			require.Equal(t, owner, []int{int(stat.Uid), int(stat.Gid)})
		}
	}
	other := path + "-too"
	require.NoError(t, os.Link(path, other))
	require.NoError(t, exitcodes.WriteRecord(path, exitcodes.Record{Reason: "second"}))
	r, err := exitcodes.ReadRecord(other)
	require.NoError(t, err)
	require.Equal(t, "second", r.Reason)
}

func TestANewTerminationLogHasTheModeOfTheUmask(t *testing.T) { // which is the process's: not beside other tests
	path := filepath.Join(t.TempDir(), "ending")
	umask := syscall.Umask(0o027)
	err := exitcodes.WriteRecord(path, exitcodes.Record{})
	syscall.Umask(umask)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 0o640, info.Mode())
}

func TestControlCharactersOfAnErrorReachNoTerminal(t *testing.T) {
	t.Parallel()
	require.Equal(t, `a\x1b[31mb\u009b\x9b\u202e	c\rd; é`, exitcodes.OneLine("a\x1b[31mb\u009b\x9b\u202e\tc\rd\r\n é"))
	cmd, wait := playing(t, "escapes")
	require.NoError(t, cmd.Start())
	p := wait()
	require.Contains(t, p.stderr, `db: \x1b[2Jgone (exit 1)`)
	require.NotContains(t, p.stderr, "\x1b")
}
