//go:build unix

package entrypoint

import (
	"net"
	"net/http"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpipe"
)

// unread runs steps under a run of which nobody reads anything: not its lines, not
// its service manager's socket, and not the record at path.
func unread(t *testing.T, path string, cfg Config, steps ...string) *running {
	_, full := testpipe.Full(t)
	return beginWith(t, func(run *exec.Cmd) {
		run.Stderr = full
		run.Env = append(run.Env, exitcodes.NotifySocketEnv+"="+testpipe.FullSocket(t), exitcodes.TerminationLogEnv+"="+path)
	}, nil, cfg, steps...)
}

func TestRestartsAndStopsGoOnThoughNobodyReadsWhatRunSays(t *testing.T) {
	t.Parallel()
	for _, path := range []string{testpipe.FIFO(t), testpipe.FullFIFO(t)} {
		r := unread(t, path, Config{}, "exit=1", "exit=166", "kill=9", "wait")
		r.happens("child ready", 1)
		require.Equal(t, 4, r.count("child started"))
		r.signal(syscall.SIGTERM)
		r.ends(0)
	}
}

func TestAGroupIsKilledAfterItsGraceThoughNobodyReadsWhatRunSays(t *testing.T) {
	t.Parallel()
	r := unread(t, testpipe.FIFO(t), Config{StopGrace: 50 * time.Millisecond}, "leave=deaf", "deaf")
	r.happens("child ready", 1)
	r.signal(syscall.SIGTERM)
	r.ends(137)
}

func TestRunParksAndEndsThoughNobodyReadsWhatItSays(t *testing.T) {
	t.Parallel()
	address := free(t)
	r := unread(t, testpipe.FIFO(t), Config{}, "superseded="+address)
	requireAnswer(t, "http://"+address+"/livez", 200, "parked")
	r.signal(syscall.SIGTERM)
	r.ends(0)
}

func TestTheParkedAPIAnswersNobodyWhoTookAnotherNameForThisHost(t *testing.T) {
	t.Parallel()
	address := free(t)
	r := begin(t, Config{}, "superseded="+address)
	requireAnswer(t, "http://"+address+"/livez", 200, "parked")
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	for host, code := range map[string]int{
		"evil.example": 403, "evil.example:" + port: 403, "10.0.0.1": 403, "localhost.evil.example": 403,
		"localhost": 200, "[::1]:" + port: 200, address: 200,
	} {
		for _, path := range []string{"/livez", "/api/leader/status"} {
			req, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
			require.NoError(t, err)
			req.Host = host
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			resp, err := client.Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, code, resp.StatusCode, "%s as %s", path, host)
		}
	}
	r.signal(syscall.SIGTERM)
	r.ends(0)
}

func TestAParkedAPIIsOnLoopback(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"0.0.0.0:7001", ":7001", "10.0.0.1:7001", "[::]:7001"} {
		_, err := Run(Config{Command: []string{"true"}, Admin: address})
		require.ErrorContains(t, err, "is not on loopback", address)
		require.Equal(t, exitcodes.Usage, exitcodes.CodeOf(err))
	}
}

func TestNoControlCharacterOfAChildsRecordReachesATerminal(t *testing.T) {
	t.Parallel()
	r := begin(t, Config{Command: []string{"sh", "-c",
		`printf '{"disposition":"none","code":64,"reason":"\\u001b[2Jgone\\nand more"}' > "$FENCEPOST_TERMINATION_LOG"; exit 64`}})
	r.ends(64)
	require.Contains(t, r.read(r.stderr), `exited 64 (\x1b[2Jgone; and more): done`)
	require.NotContains(t, r.read(r.stderr), "\x1b")
}
