// Package bluegreen_test runs the program bluegreen, as it is built, on every
// store, and once over a store without a fence.
package bluegreen_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/internal/testetcd"
	"github.com/fencepost/fencepost/internal/testpg"
)

// binariesEnv hands the folder of the built programs from TestMain to the
// tests.
const binariesEnv = "BLUEGREEN_TEST_BINARIES"

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "bluegreen-test-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	root := filepath.Join("..", "..")
	for _, build := range []struct {
		from string
		args []string
	}{
		{root, []string{"./examples/kvserver", "./cmd/fencepost"}},
		{root, []string{"-race", "./examples/bluegreen"}},
		{"..", []string{"./brokenkv"}},
	} {
		cmd := exec.Command("go", append([]string{"build", "-o", dir + string(filepath.Separator)}, build.args...)...)
		cmd.Dir = build.from
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("go build %v: %w: %s", build.args, err, out)
		}
	}
	if err := os.Setenv(binariesEnv, dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// report is what bluegreen -json prints.
type report struct {
	Store             string `json:"store"`
	Requests          int    `json:"requests"`
	Failed            int    `json:"failed"`
	Lost              int    `json:"lost"`
	Duplicated        int    `json:"duplicated"`
	StaleAccepted     int    `json:"stale_accepted"`
	RefusedButWritten int    `json:"refused_but_written"`
	PauseMS           *int64 `json:"pause_ms"`
	servers
	StepsFailed []string  `json:"steps_failed"`
	Rounds      []servers `json:"rounds"`
}

type servers struct {
	Blue struct {
		Token    *fence.Token `json:"token"`
		ExitCode *int         `json:"exit_code"`
		Restarts int          `json:"restarts"`
	} `json:"blue"`
	Green struct {
		Token    *fence.Token `json:"token"`
		Restarts int          `json:"restarts"`
	} `json:"green"`
}

// bluegreen runs the program, and returns its report and exit status.
func bluegreen(t *testing.T, store, server string, flags ...string) (r report, code int) {
	t.Helper()
	dir := os.Getenv(binariesEnv)
	args := append([]string{"-json", "-server", filepath.Join(dir, server), "-fencepost", filepath.Join(dir, "fencepost")}, flags...)
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "bluegreen"), args...)
	cmd.Env = append(os.Environ(), "FENCEPOST_STORE="+store)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	t.Log(stderr.String())
	require.NotContains(t, stderr.String(), "DATA RACE")
	require.NotNil(t, cmd.ProcessState, err)
	out := json.NewDecoder(&stdout)
	require.NoError(t, out.Decode(&r))
	require.False(t, out.More(), "more than one JSON object on standard output")
	return r, cmd.ProcessState.ExitCode()
}

func TestNoAcknowledgedWriteIsLostWhenGreenTakesOver(t *testing.T) {
	for _, store := range []struct {
		name string
		url  func(testing.TB) string
	}{
		{"sqlite", func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "kv.db") }},
		{"postgres", testpg.URL},
		{"etcd", testetcd.URL},
	} {
		t.Run(store.name, func(t *testing.T) {
			t.Parallel() // most of the time is spent waiting for silence
			r, code := bluegreen(t, store.url(t), "kvserver")
			require.Empty(t, r.StepsFailed)
			require.Zero(t, r.Lost, "lost")
			require.Zero(t, r.Duplicated, "duplicated")
			require.Zero(t, r.StaleAccepted, "stale_accepted")
			require.Zero(t, r.RefusedButWritten, "refused_but_written")
			require.Zero(t, code, "exit status")
			require.Greater(t, r.Requests-r.Failed, 500, "acknowledged writes")
			require.NotNil(t, r.PauseMS)
			require.Contains(t, r.Store, store.name)
			requireServers(t, r.servers, fence.Token{Generation: 2, Epoch: 3}, 1)
			require.Len(t, r.Rounds, 2)
			requireServers(t, r.Rounds[1], fence.Token{Generation: 2, Epoch: 2}, 0)
		})
	}
}

// requireServers says how blue and green must have fared.
func requireServers(t *testing.T, s servers, green fence.Token, greenRestarts int) {
	t.Helper()
	require.Equal(t, &fence.Token{Generation: 1, Epoch: 1}, s.Blue.Token, "blue's token")
	require.NotNil(t, s.Blue.ExitCode, "blue did not end")
	require.Zero(t, *s.Blue.ExitCode, "blue's exit status")
	require.Zero(t, s.Blue.Restarts, "blue's restarts")
	require.Equal(t, &green, s.Green.Token, "green's token")
	require.Equal(t, greenRestarts, s.Green.Restarts, "green's restarts")
}

func TestStaleWritesAreFoundWhereTheConditionAlwaysHolds(t *testing.T) {
	t.Parallel()
	r, code := bluegreen(t, "sqlite:"+filepath.Join(t.TempDir(), "kv.db"), "brokenkv", "-patience", "8s", "-load", "500ms")
	require.Positive(t, r.StaleAccepted, "stale_accepted")
	require.Equal(t, 1, code, "exit status")
}
