package leader_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every 200 ms the wall clock is set an hour forward, an hour back, or right;
// the monotonic one goes on.
const jumping = `
func jumpOfWallClock(mono int64) int64 {
	switch mono / 200e6 % 3 {
	case 0:
		return 3600
	case 1:
		return -3600
	}
	return 0
}
`

func TestTheWallClockDecidesNothing(t *testing.T) {
	t.Parallel()
	goroot, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	require.NoError(t, err)
	original := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	require.NoError(t, err)
	const begins = "\tmono -= startNano\n"
	before, now, found := strings.Cut(string(source), "func Now() Time {\n")
	require.True(t, found)
	require.Contains(t, now, begins, "time.Now is not what it was: look how it reads the clock now")
	changed := before + "func Now() Time {\n" + strings.Replace(now, begins, "\tsec += jumpOfWallClock(mono)\n"+begins, 1) + jumping

	dir := t.TempDir()
	replaced, overlay, program := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "jump")
	require.NoError(t, os.WriteFile(replaced, []byte(changed), 0o600))
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{original: replaced}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, list, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", program, "./testdata/jump").CombinedOutput()
	require.NoError(t, err, string(out))
	out, err = exec.CommandContext(t.Context(), program).CombinedOutput()
	require.NoError(t, err, string(out))
}
