package cli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/memory"
	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/internal/testpipe"
	"github.com/fencepost/fencepost/leader"
)

// elsewhere is a server that must not be asked.
func elsewhere(t *testing.T) (url string, asked *atomic.Int64) {
	asked = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = fmt.Fprint(w, `{"status":{"phase":"Leading"}}`)
	}))
	t.Cleanup(s.Close)
	return s.URL, asked
}

func TestStepDownAndHealthFollowNoRedirect(t *testing.T) {
	t.Parallel()
	other, asked := elsewhere(t)
	for _, code := range []int{301, 302, 303, 307, 308} {
		s := httptest.NewServer(http.RedirectHandler(other, code))
		for _, args := range [][]string{{"step-down"}, {"preference", "none"}, {"health", "leader"}} {
			got := run(t, nil, append(args, "--admin", strings.TrimPrefix(s.URL, "http://"))...)
			require.Equal(t, exitcodes.Failure, got.code)
			require.Contains(t, got.stderr, fmt.Sprint(code))
		}
		s.Close()
	}
	require.Zero(t, asked.Load())
}

// A proxy is never asked for 127.0.0.1, but for other addresses of this host, and the
// variables are read once a process.
func TestStepDownAndHealthUseNoProxy(t *testing.T) {
	t.Parallel()
	proxy, asked := elsewhere(t)
	for _, args := range [][]string{{"step-down"}, {"preference", "none"}, {"health", "leader"}} {
		cmd := exec.Command(binary(t), append(args, "--admin", "fencepost.invalid:7001", "--timeout", "1s")...)
		cmd.Env = append(os.Environ(), "HTTP_PROXY="+proxy, "http_proxy="+proxy, "NO_PROXY=", "no_proxy=")
		require.Error(t, cmd.Run())
		require.Equal(t, int(exitcodes.Failure), cmd.ProcessState.ExitCode())
	}
	require.Zero(t, asked.Load())
}

// binary is the command fencepost, which the test binary is under that name.
func binary(t *testing.T) string {
	path, err := exec.LookPath("fencepost")
	require.NoError(t, err)
	return path
}

func TestAnAdminAddressIsHostAndPortAndNoMore(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1", "127.0.0.1:1@elsewhere.example:80", "elsewhere.example:80/x", "http://127.0.0.1:1", "127.0.0.1:1?x", ":1#"} {
		for _, args := range [][]string{{"step-down"}, {"preference", "none"}, {"health", "live"}} {
			got := run(t, nil, append(args, "--admin", address)...)
			require.Equal(t, exitcodes.Usage, got.code, got.stderr)
			require.Contains(t, got.stderr, "want HOST:PORT")
		}
	}
}

func TestNoControlCharacterOfAServersAnswerReachesATerminal(t *testing.T) {
	t.Parallel()
	code := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		if r.Method == http.MethodPost {
			_, _ = fmt.Fprint(w, `{"error":"\u001b[2Jno","status":{"phase":"Leading"}}`)
			return
		}
		_, _ = fmt.Fprint(w, "\x1b[2Jleads\r\nin \u009b31m")
	}))
	defer s.Close()
	admin := strings.TrimPrefix(s.URL, "http://")
	require.Equal(t, `\x1b[2Jleads; in \u009b31m`+"\n", run(t, nil, "health", "leader", "--admin", admin).stdout)
	code = http.StatusConflict
	for _, args := range [][]string{{"step-down"}, {"preference", "none"}, {"health", "leader"}} {
		got := run(t, nil, append(args, "--admin", admin)...)
		require.Contains(t, got.stderr, `\x1b[2J`)
		require.NotContains(t, got.stderr, "\x1b")
	}
}

func TestEveryWayToAskForJSONGivesErrorsInJSON(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--json", "--json=1", "--json=true", "--json=T", "--json=TRUE"} {
		for _, args := range [][]string{{flag, "nonsense"}, {"status", flag, "--nope"}, {"status", "--json=false", flag, "--store", "postgres://u:secret@h/d"}} {
			got := run(t, nil, args...)
			require.Equal(t, exitcodes.Usage, got.code, args)
			require.EqualValues(t, exitcodes.Usage, object(t, got.stderr)["code"], args)
		}
	}
	for _, args := range [][]string{{"--json=0", "nonsense"}, {"--json", "--json=false", "nonsense"}, {"--json=maybe", "nonsense"}, {"run", "--", "--json"}} {
		require.False(t, strings.HasPrefix(run(t, nil, args...).stderr, "{"), args)
	}
}

func TestACommandThatFailsEndsThoughNobodyReadsWhy(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(binary(t), "nonsense")
	_, cmd.Stderr = testpipe.Full(t)
	require.Error(t, cmd.Run())
	require.Equal(t, int(exitcodes.Usage), cmd.ProcessState.ExitCode())
}

func TestPreferenceTellsAProcessWhetherToLeaveTheLeadToOthers(t *testing.T) {
	t.Parallel()
	l, err := leader.New(memory.New(), leader.Config{Catalog: catalog.Config{Generation: 1}})
	require.NoError(t, err)
	s := httptest.NewServer(l.Handler())
	defer s.Close()
	admin := strings.TrimPrefix(s.URL, "http://")
	for _, say := range []string{"not-to-lead", "none"} {
		got := run(t, nil, "preference", say, "--admin", admin)
		require.Equal(t, exitcodes.Success, got.code, got.stderr)
		require.Equal(t, say == "not-to-lead", l.Status().Reluctant)
	}
	for _, args := range [][]string{{}, {"perhaps"}, {"none", "none"}} {
		require.Equal(t, exitcodes.Usage, run(t, nil, append([]string{"preference", "--admin", admin}, args...)...).code, args)
	}
}
