//go:build unix

package entrypoint

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
)

func TestAChildThatIsDoneEndsRunWithZeroAndIsNotStartedAgain(t *testing.T) {
	r := begin(t, Config{}, "exit=0")
	r.ends(0)
	require.Equal(t, 1, r.count("child started"))
	require.Contains(t, r.read(r.stderr), "exited 0: done (exit 0)\n")
}

func TestAWrongCommandLineEndsRunWith64(t *testing.T) {
	r := begin(t, Config{}, "exit=64")
	r.ends(64)
	require.Equal(t, 1, r.count("child started"))
}

func TestAChildThatFailsIsStartedAgainUntilItIsDone(t *testing.T) {
	steps := []string{"exit=1", "exit=2", "exit=75", "exit=78", "exit=3", "kill=9", "kill=11", "fenced", "exit=166", "exit=0"}
	r := begin(t, Config{}, steps...)
	r.ends(0)
	require.Equal(t, len(steps), r.count("child started"))
	lines := r.read(r.stderr)
	require.Equal(t, len(steps)-1, strings.Count(lines, ": restarting "))
	require.Contains(t, lines, "exited 78: restarting in 40ms")
	require.Contains(t, lines, "was killed by signal 9 (killed): restarting at once, ", "the first signal")
	require.Contains(t, lines, "was killed by signal 11 (segmentation fault): restarting in ", "the second one")
	require.Contains(t, lines, "exited 166 (fenced by epoch: held g7.e41, the store has g7.e42 of twin: "+
		"end, and start again as a standby): restarting at once, after 7 restarts\n", "the first halt")
	require.Contains(t, lines, "exited 166: restarting in ", "the second one")
	require.Contains(t, lines, "exited 0: done, after 9 restarts (exit 0)\n")
}

func TestASupersededChildParksAndIsNeverStartedAgain(t *testing.T) {
	address := free(t)
	r := begin(t, Config{}, "exit=1", "superseded="+address)
	r.says("parked until told to stop, answering on " + address + ", after 1 restart")
	require.Contains(t, r.read(r.stderr), "exited 0 (superseded: held g7.e41, the store has g8.e42 of green")
	require.Equal(t, 2, r.count("child started"))

	requireAnswer(t, "http://"+address+"/livez", 200, "parked: superseded: held g7.e41")
	requireAnswer(t, "http://"+address+"/readyz/standby", 503, "parked: superseded")
	requireAnswer(t, "http://"+address+"/readyz/leader", 503, "parked: superseded")
	requireAnswer(t, "http://"+address+"/readyz", 503, "parked: superseded")
	requireAnswer(t, "http://"+address+"/elsewhere", 404, "")
	var status parkedStatus
	require.NoError(t, json.Unmarshal([]byte(requireAnswer(t, "http://"+address+"/api/leader/status", 200, "")), &status))
	require.Equal(t, "Superseded", status.Phase)
	require.True(t, status.Parked)
	require.Equal(t, 1, status.Restarts)
	require.Equal(t, "db", status.Record.Name)

	r.signal(syscall.SIGTERM)
	r.ends(0)
	require.Equal(t, 2, r.count("child started"))
	passedOn, err := exitcodes.ReadRecord(r.record)
	require.NoError(t, err)
	require.True(t, passedOn.Superseded)
}

// requireAnswer waits until url answers, and requires how.
func requireAnswer(t *testing.T, url string, code int, contains string) string {
	t.Helper()
	var got int
	var body []byte
	require.Eventually(t, func() bool {
		resp, err := get(t, url)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		got = resp.StatusCode
		body, err = io.ReadAll(resp.Body)
		return err == nil
	}, time.Minute, 10*time.Millisecond, url)
	require.Equal(t, code, got, url)
	require.Contains(t, string(body), contains)
	return string(body)
}

// free returns a loopback address on which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func TestOnSupersededExitEndsWithZero(t *testing.T) {
	r := begin(t, Config{OnSuperseded: End}, "superseded=127.0.0.1:1")
	r.ends(0)
	require.Equal(t, 1, r.count("child started"))
}

func TestParkingWaitsForTheOldListenerToVanish(t *testing.T) {
	old, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := old.Addr().String()
	r := begin(t, Config{Admin: address}, "superseded=")
	r.says("parked until told to stop, answering on " + address)
	require.NoError(t, old.Close())
	requireAnswer(t, "http://"+address+"/livez", 200, "parked")
	r.signal(syscall.SIGINT)
	r.ends(0)
}

func TestAnAddressThatStaysTakenIsSaidAndRunStaysParked(t *testing.T) {
	old, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer old.Close()
	r := begin(t, Config{Admin: old.Addr().String(), BindTimeout: 50 * time.Millisecond}, "superseded=")
	r.says("parked without answering: listening on " + old.Addr().String())
	r.signal(syscall.SIGTERM)
	r.ends(0)
}

func TestARecordThatAnotherProcessLeftParksNobody(t *testing.T) {
	r := begin(t, Config{Command: []string{"sh", "-c",
		`echo '{"disposition":"graceful exit","code":0,"superseded":true}' > "$FENCEPOST_TERMINATION_LOG"; exit 64`}})
	r.ends(64)
	r = begin(t, Config{Command: []string{"sh", "-c",
		`echo '{"disposition":"halt","code":166,"superseded":true}' > "$FENCEPOST_TERMINATION_LOG"; exit 0`}})
	r.ends(0)
}

func TestEveryStartHasAFreshRecord(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "marker")
	r := begin(t, Config{Command: []string{"sh", "-c", `
		[ -s "$FENCEPOST_TERMINATION_LOG" ] && exit 64
		[ -e "$0" ] && exit 0
		touch "$0"
		echo '{"disposition":"halt","code":166,"reason":"from the record"}' > "$FENCEPOST_TERMINATION_LOG"; exit 166`, marker}})
	r.ends(0)
	require.Contains(t, r.read(r.stderr), "exited 166 (from the record): restarting at once\n")
	entries, err := os.ReadDir(filepath.Dir(r.record))
	require.NoError(t, err)
	for _, e := range entries {
		require.NotContains(t, e.Name(), "fencepost-run", "its private folder is removed")
	}
}

func TestAChildWithoutARecordIsDescribedInTheOnePassedOn(t *testing.T) {
	r := begin(t, Config{}, "kill=9", "wait")
	r.happens("child ready", 1)
	require.Eventually(t, func() bool {
		record, err := exitcodes.ReadRecord(r.record)
		return err == nil && record.Code == 137 && strings.Contains(record.Reason, "was killed by signal 9")
	}, time.Minute, 5*time.Millisecond)
	r.signal(syscall.SIGTERM)
	r.ends(0)
}

func TestACommandThatIsNotThereEndsWith127AndOneThatCannotRunWith126(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	plain := filepath.Join(t.TempDir(), "plain")
	garbage := filepath.Join(t.TempDir(), "garbage")
	require.NoError(t, os.WriteFile(plain, nil, 0o600))
	require.NoError(t, os.WriteFile(garbage, []byte("\x00garbage"), 0o700))
	for command, code := range map[string]int{
		missing: 127, "no-such-command-anywhere": 127, plain: 126, garbage: 126, t.TempDir(): 126,
	} {
		r := begin(t, Config{Command: []string{command}})
		r.ends(code)
		require.Contains(t, r.read(r.stderr), `fencepost run: can't start "`+command+`": `)
		record, err := exitcodes.ReadRecord(r.record)
		require.NoError(t, err)
		require.Equal(t, exitcodes.Code(code), record.Code)
	}
	r := begin(t, Config{Command: []string{}})
	r.ends(64)
}

func TestASupersededHelperDoesNotParkTheServerThatStartedIt(t *testing.T) {
	r := begin(t, Config{}, "helped")
	r.ends(0)
	require.Contains(t, r.read(r.stderr), "exited 0: done (exit 0)")
}
