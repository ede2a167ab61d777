package supervisors

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fencepost/fencepost/exitcodes"
	"github.com/fencepost/fencepost/fence"
)

// A row is one way to end, and what follows under each supervisor with the files
// of examples/supervisors. The table in docs/supervisors.md is made of these
// rows, and the tests play them.
type row struct {
	name string // of the role that ends like this
	code string // as the table has it
	says string // why a process ends so

	run         string // fencepost run
	systemd     string // fencepost@.service
	supervisord string // [program:kv-9]
	pod         string // kubernetes/pod.yaml
	compose     string // kv-9 of compose.yaml

	down bool // it stays down, under systemd, supervisord and the pod
}

const (
	down    = "stays down"
	failed  = "stays down, failed"
	atOnce  = "restarts at once"
	backOff = "restarts, growing delays"
	later   = "restarts after 1 s"
)

func rows() []row {
	same := func(name, code, says string) row {
		return row{name, code, says, backOff, later, atOnce, backOff, backOff, false}
	}
	fenced := same("fenced", "166", "fenced by epoch, or it must start anew")
	fenced.run = "restarts at once, then growing delays"
	return []row{
		{"superseded", "0", "superseded by a newer generation", "parks; with `--on-superseded=exit` ends with 0", down, down, down, down, true},
		{"done", "0", "a requested stop, or work that is done", "ends with 0", down, down, down, down, true},
		same("failure", "1", "an application's own error"),
		same("panic", "2", "a broken invariant, or Go's panic"),
		{"usage", "64", "the command line is wrong", "ends with 64", failed, down, failed, backOff, true},
		same("retry", "75", "the store could not be reached for long"),
		{"config", "78", "only configuration or rights help", "restarts every 30 s", failed, down, failed, backOff, true},
		fenced,
		same("killed", "signal", "a crash, or out of memory"),
	}
}

// end ends this process as a row says.
func end(name string) error {
	held := fence.Token{Generation: 7, Epoch: 41}
	switch name {
	case "superseded":
		return fence.Check(held, fence.Token{Generation: 8, Epoch: 42}, fence.Holder{Name: "green"})
	case "done":
		return nil
	case "failure":
		return errors.New("plain")
	case "panic":
		panic("broken")
	case "usage":
		return exitcodes.WithCode(errors.New("no such flag"), exitcodes.Usage)
	case "retry":
		return exitcodes.With(errors.New("unreachable"), exitcodes.Retry)
	case "config":
		return exitcodes.WithCode(errors.New("no rights"), exitcodes.Config)
	case "fenced":
		return fence.Check(held, fence.Token{Generation: 7, Epoch: 42}, fence.Holder{Name: "twin"})
	case "killed":
		return errors.Join(kill(), errors.New("still here"))
	default:
		return fmt.Errorf("no such role: %q", name)
	}
}

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "supervisors.md"))
	require.NoError(t, err)
	return string(text)
}

func TestTheTableOfThePageIsTheOneThatTheTestsPlay(t *testing.T) {
	want := "| ends with | because | `fencepost run` | systemd | supervisord | Kubernetes, pod with rules | Compose, `on-failure` |\n|---|---|---|---|---|---|---|\n"
	for _, r := range rows() {
		want += "| " + strings.Join([]string{r.code, r.says, r.run, r.systemd, r.supervisord, r.pod, r.compose}, " | ") + " |\n"
	}
	require.Contains(t, page(t), want, "the table of the page must be:\n"+want)
}

func TestThePageLinksEveryFile(t *testing.T) {
	text := page(t)
	require.NoError(t, filepath.WalkDir(examples, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(examples, path)
			require.Contains(t, text, "(../examples/supervisors/"+filepath.ToSlash(name)+")")
		}
		return err
	}))
}

func TestEveryCodeOfTheContractHasARow(t *testing.T) {
	codes := make(map[string]bool)
	for _, r := range rows() {
		codes[r.code] = true
	}
	for _, m := range exitcodes.Meanings() {
		if m.Code != m.Last || strings.HasPrefix(m.Producer, "fencepost run") {
			continue // signals, which have the row of their name, and what run alone ends with
		}
		require.True(t, codes[fmt.Sprint(int(m.Code))], "code %d", m.Code)
	}
}
